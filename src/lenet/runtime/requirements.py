"""What files such as requirements.lock pin. Light: it waits for no torch."""

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lenet.runtime.errors import InputError

LOCKS = (Path("requirements.lock"), Path("requirements-torch.lock"))
"""The second is torch's: it has no hashes, as indexes carry different builds of one version."""


def pins(path: Path) -> dict[str, str]:
    """The versions for this platform and this Python, by canonical name. Raises InputError for what is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        stated = [line.rstrip(" \\") for line in lines if line.strip() and not line.startswith(("#", " ", "-"))]
        found = [Requirement(line) for line in stated]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InputError(f"{path}: {reason}") from None
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate()
    }
