"""What both kinds of card share: the front matter and the templates."""

import io
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from ruamel.yaml import YAML

LANGUAGE, MNIST, TASK = ["en"], "ylecun/mnist", "image-classification"
"""As the Hugging Face hub names them."""


def matter(content: dict[str, Any]) -> str:
    """YAML between two lines of three hyphens."""
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(content, text)
    return f"---\n{text.getvalue()}---"


@cache
def template(name: str) -> Template:
    """A file of ``templates``. A value that it names and does not get is an error."""
    folder = Path(__file__).parent / "templates"
    loader = Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, autoescape=False)
    loader.filters |= {"percent": percent, "count": lambda number: f"{number:,}"}
    return loader.get_template(name)


def percent(share: float) -> str:
    """A fraction of 1 in per cent, as every table shows errors."""
    return f"{100 * share:.2f}"


def licence() -> str:
    """This project's, as the hub spells it."""
    return metadata.metadata("lenet")["License-Expression"].lower()
