"""HTML pages that need nothing else: the package's templates, and pictures inside the file."""

import base64
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """A template of the package's. A name that is not given to it is an error; text is escaped."""
    environment = Environment(
        loader=PackageLoader("lenet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def inline(kind: str, content: bytes) -> str:
    """A picture as an address that holds it; ``kind`` as in ``svg+xml``."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
