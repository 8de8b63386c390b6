"""Model cards and the data card, as Markdown with YAML front matter: all numbers are those in Git."""

from pathlib import Path

from lenet.cards import data, model
from lenet.cards.published import Published, published
from lenet.params.schema import Params
from lenet.runtime.errors import InputError

__all__ = ["DATA", "Published", "card", "published"]

DATA = "mnist"
"""The data card's name beside those of variants."""


def card(params: Params, name: str, project: Path = Path()) -> str:
    """A card as a hub of models expects its README.md.

    Args:
        params: the whole of params.yaml.
        name: of a variant that has published runs, or DATA.
        project: the root of the repository.

    Raises:
        InputError: there is nothing published of this name, or a file of it is damaged.
    """
    found = published(params, project)
    if name == DATA:
        return data.card(params, found.values(), project)
    if name not in found:
        raise InputError(f"{name!r} has no published runs; legal: {', '.join([DATA, *found])}")
    return model.card(found[name])
