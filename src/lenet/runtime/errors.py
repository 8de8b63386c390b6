"""What a command says when its input is at fault."""

from pathlib import Path


def visible(text: str) -> str:
    """A text whose characters all show: one that moves the cursor, turns the writing or is of no width is its code."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class InputError(Exception):
    """Bad parameters, data, names or files: the command ends with this one line and exit status 2."""


class ParamsError(InputError):
    """A fault in params.yaml: names the path, the value and what would be legal."""


class FaultyFile(InputError):
    """A file of results, or a folder of them, that is missing or damaged: names it, the fault, and what makes it again.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, fault: str) -> None:
        here = Path("experiments").absolute()  # layout.py, which has its name, imports this
        around = next((place.name for place in path.absolute().parents if place.parent == here), "")
        again = f"lenet repro {around}".strip()
        super().__init__(f"{path}: {fault}; `{again}` makes it again")
        self.path = path


class Diverged(InputError):
    """A training in which a number has become infinite: names what, the step and the epoch."""
