"""A trial's block into params.yaml: what differs is replaced in the text, and nothing else of it is touched."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from lenet import config
from lenet.config import flatten
from lenet.errors import InputError
from lenet.files import write_text
from lenet.sweep.result import Result


def promote(result: Result, number: int | None, path: Path) -> str:
    """Write a trial's block into params.yaml, in place of its variant's; return the difference as a unified diff.

    Args:
        result: the study.
        number: the trial's; None for the best one.
        path: params.yaml.

    Raises:
        InputError: no such trial, several objectives and no number, or the rest of the block has changed since.
    """
    trial = _choose(result, number)
    params = config.load(path)
    block, now = result.block(trial), params.variant(result.plan.variant).model_dump()
    base = result.plan.domains.rest(now)
    if base != result.plan.base:
        before, after = flatten(result.plan.base), flatten(base)
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        raise InputError(
            f"params.yaml: variants.{result.plan.variant} is not what study {result.name} was made with; "
            f"changed since: {', '.join(names)}"
        )
    text = path.read_text(encoding="utf-8")
    changed = text
    for place, value in _changes(now, block, ("variants", result.plan.variant)):
        changed = _replace(changed, place, value)
    found = config.validate(YAML(typ="safe").load(changed), str(path)).variants[result.plan.variant].model_dump()
    if found != block:
        raise AssertionError(f"{path} would not hold trial {trial.number}")
    write_text(path, changed)
    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), str(path), str(path), lineterm="", n=1)
    return "\n".join(lines)


def _choose(result: Result, number: int | None) -> Any:
    if number is None:
        if len(result.plan.objectives) > 1:
            front = ", ".join(str(trial.number) for trial in result.best)
            raise InputError(f"study {result.name} has several objectives; choose by --trial, of its front: {front}")
        if not result.best:
            raise InputError(f"study {result.name} has no complete trial")
        return result.best[0]
    complete = {trial.number: trial for trial in result.complete}
    if number not in complete:
        legal = ", ".join(map(str, complete)) or "none"
        raise InputError(f"study {result.name} has no complete trial {number}; complete are: {legal}")
    return complete[number]


def _changes(
    now: Mapping[str, Any], then: Mapping[str, Any], place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What to put where: single values, or whole parts whose names change."""
    for name, value in then.items():
        if now[name] == value:
            continue
        if isinstance(value, Mapping) and now[name].keys() == value.keys():
            yield from _changes(now[name], value, (*place, name))
        else:
            yield (*place, name), value


def _replace(text: str, place: tuple[str, ...], value: Any) -> str:
    node = YAML().compose(text)
    for name in place:
        node = _child(node, name)
    if isinstance(node, MappingNode) and not node.flow_style:
        start = text.rfind("\n", 0, node.start_mark.index) + 1
        indent = " " * (node.start_mark.index - start)
        return text[: node.start_mark.index] + f"\n{indent}".join(_block(value)) + "\n" + text[node.end_mark.index :]
    return text[: node.start_mark.index] + _flow(value) + text[node.end_mark.index :]


def _child(node: Node, name: str) -> Node:
    return next(value for key, value in node.value if key.value == name)


def _block(value: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {_flow(one)}" for name, one in value.items()]


def _flow(value: Any) -> str:
    """A value as YAML reads it back exactly, by every reader."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        digits, _, exponent = repr(value).partition("e")
        return f"{digits if '.' in digits else f'{digits}.0'}e{exponent}" if exponent else digits
    return str(value)
