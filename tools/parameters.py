"""MkDocs hook: tables of params.yaml's keys, from the types that check it."""

import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, get_args

from lenet.params.schema import Params, Section, Variant
from lenet.sweep.settings import Settings

MARK = "<!-- generated: parameters -->"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return markdown.replace(MARK, "\n".join(tables())) if MARK in markdown else markdown


def tables() -> Iterator[str]:
    """A heading, the docstring and a table for each type."""
    for title, top in (("Top level", Params), ("Blocks of `variants`", Variant), ("`sweep`", Settings)):
        yield f"## {title}\n"
        for section in sections(top, {Variant} - {top}):
            said = meanings(section)
            yield f"### {section.__name__}\n\n{prose(section)}\n"
            yield "| key | legal | meaning |\n|---|---|---|" if said else "| key | legal |\n|---|---|"
            for key, found in section.model_json_schema()["properties"].items():
                yield f"| `{key}` | {legal(found)} |" + (f" {said.get(key, '')} |" if said else "")
            yield ""


def sections(top: type[Section], without: set[type[Section]]) -> list[type[Section]]:
    """A type and all types of its parts, each once, without some."""
    found: list[type[Section]] = []

    def visit(annotation: Any) -> None:
        if not inspect.isclass(annotation) or isinstance(annotation, types.GenericAlias):
            for part in get_args(annotation):
                visit(part)
        elif issubclass(annotation, Section) and annotation not in {*found, *without}:
            found.append(annotation)
            for field in annotation.model_fields.values():
                visit(field.annotation)

    visit(top)
    return found


def prose(section: type[Section]) -> str:
    """The docstring, less what it says of single keys."""
    return inspect.cleandoc(section.__doc__ or "").partition("\n\nAttributes:")[0].replace("``", "`")


def meanings(section: type[Section]) -> dict[str, str]:
    """What is said of each key: the comment behind it, or its line in the docstring."""
    comments = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(section), re.M)
    return dict(re.findall(r"^    (\w+): (.*?)\.?$", inspect.cleandoc(section.__doc__ or ""), re.M)) | dict(comments)


def legal(schema: dict[str, Any]) -> str:
    """A JSON schema in short."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if parts := schema.get("oneOf") or schema.get("anyOf"):
        return ", ".join(legal(part) for part in parts)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"list of {legal(items)}"
    if schema["type"] == "object":
        inner = schema.get("additionalProperties")
        return f"name: {legal(inner)}" if isinstance(inner, dict) and inner else "mapping"
    bounds = [f"{sign} {schema[name]:,g}" for name, sign in BOUNDS.items() if schema.get(name, 2**63) < 2**63]
    return ", ".join([schema["type"], *bounds])
