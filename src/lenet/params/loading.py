"""params.yaml and other YAML files, read within bounds and validated; what is wrong is one line a fault."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from lenet.params.schema import FAMILIES, Blocks, Params, Section
from lenet.runtime import layout
from lenet.runtime.errors import ParamsError

PATH = Path("params.yaml")
S = TypeVar("S", bound=Section)
LARGEST = 2**18  # characters, or values, of a file such as params.yaml, which has some thousand


def load(path: Path = PATH) -> Params:
    """Read and validate params.yaml, with the variants of experiments/*/params.yaml beside it.

    Raises ParamsError, one line a fault.
    """
    if not path.exists():
        raise ParamsError(f"{path} is not here; run this in the project's folder")
    params = validate(read(path), str(path))
    variants = dict(params.variants)
    for own in files(path)[1:]:
        content = read(own)
        if isinstance(content, dict):
            content = {key: content[key] for key in Blocks.model_fields if key in content}
        for name, block in checked(Blocks, content, own).variants.items():
            if name in variants:
                raise ParamsError(f"{own}: variants.{name}: a variant of this name stands in another params.yaml, too")
            variants[name] = block
    return params.model_copy(update={"variants": variants})


def home_of(variant: str, path: Path = PATH) -> Path:
    """The params.yaml that has a variant's block: the root's, or an experiment's."""
    return next((file for file in files(path) if variant in blocks(file)), path)


def files(path: Path = PATH) -> list[Path]:
    """The root's params.yaml and those of the experiments."""
    return [path, *(home / PATH for home in layout.homes(path.parent)[1:] if (home / PATH).exists())]


def blocks(path: Path) -> Any:
    """What stands under ``variants`` in a params.yaml; an experiment's may have none."""
    content = read(path)
    return content.get("variants", {}) if isinstance(content, dict) else {}


def safe(text: str) -> Any:
    """YAML as plain values."""
    return YAML(typ="safe").load(text)


def read(path: Path, loader: Callable[[str], Any] = safe) -> Any:
    """A YAML file's content, within bounds (``parse``). Raises ParamsError, in one line."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file.read(LARGEST + 1), str(path), loader)
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not legal YAML: {error}") from None


def parse(text: str, source: str, loader: Callable[[str], Any] = safe, largest: int = LARGEST) -> Any:
    """YAML's content, wherever it is from: limited in size, depth, aliases and digits.

    Args:
        text: the YAML.
        source: what to call it in messages.
        loader: what reads it, such as ``YAML().load``, which keeps comments.
        largest: more characters, or values with aliases written out, are refused.

    Raises:
        ParamsError: it is no YAML, or goes beyond a limit; in one line.
    """
    if len(text) > largest:
        raise ParamsError(f"{source}: more than {largest:,} characters")
    try:
        data = loader(text)
        values = _values(data, {})
    except RecursionError:
        raise ParamsError(f"{source}: blocks are nested too deeply") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ParamsError(f"{where}: not legal YAML: {error.problem}") from None
    except Exception as error:  # ruamel.yaml makes values of tagged texts (`!!int x`) with whatever error comes of it
        said = " ".join(str(error).split())
        raise ParamsError(f"{source}: not legal YAML: {said or type(error).__name__}") from None
    if values > largest:
        raise ParamsError(f"{source}: with its aliases written out it would have more than {largest:,} values")
    return data


def _values(data: Any, known: dict[int, int]) -> int:
    """How many values there are once aliases, whose values YAML shares, are written out. ``known``: of shared ones.

    Raises ValueError for a number that Python will not write in decimals, as messages do: one in hexadecimals.
    """
    if not isinstance(data, (dict, list, tuple)):
        _ = str(data) if isinstance(data, int) else ""
        return 1
    if id(data) not in known:
        known[id(data)] = sys.maxsize  # should it hold itself
        known[id(data)] = 1 + sum(
            _values(value, known) for value in (data.values() if isinstance(data, dict) else data)
        )
    return known[id(data)]


def validate(data: Any, source: str) -> Params:
    """Turn the content of params.yaml into Params. Raises ParamsError, one line a fault."""
    return checked(Params, data, source)


def checked(kind: type[S], data: Any, source: Path | str) -> S:
    """Turn the content of a YAML file into a section of its kind. Raises ParamsError, one line a fault."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors()
        inner = {fault["loc"][:depth] for fault in found for depth in range(len(fault["loc"]))}
        faults = [f"{source}: {_explain(fault, data)}" for fault in found if fault["loc"] not in inner]
    except ParamsError as error:
        faults = [f"{source}: compare: {error}"]
    raise ParamsError("\n".join(faults)) from None


def flatten(block: Section | Mapping[str, Any]) -> dict[str, Any]:
    """Return a block's leaves by dotted name, for example ``optimizer.lr``; lists are leaves, as JSON has them."""

    def leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from leaves(item, (*path, key))
        else:
            yield ".".join(path), value

    return dict(leaves(block.model_dump(mode="json") if isinstance(block, Section) else block, ()))


def _explain(fault: Any, data: Any) -> str:
    """One pydantic fault in params.yaml's own terms: path, value, what is legal."""
    kind, context = fault["type"], fault.get("ctx", {})
    path, value = _locate(fault["loc"], data)
    if kind == "missing":
        return f"{path}: missing"
    if kind == "union_tag_not_found":
        return f"{path}.{context['discriminator'].strip(chr(39))}: missing"
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return f"{path}.{tag} = {value[tag]!r}; legal: {context['expected_tags']}"
    if kind == "literal_error":
        return f"{path} = {value!r}; legal: {context['expected']}"
    if kind == "value_error":
        message = str(context["error"])
        return f"{path}: {message}" if path else message
    if "[key]" in fault["loc"]:
        return f"{path}: a name has lower-case letters, digits and hyphens, and starts with a letter"
    legal = fault["msg"].removeprefix("Input should be ")
    if kind == "too_short":
        legal = f"at least {context['min_length']} of them"
    if kind == "model_type":
        legal = "keys with their values"
    return f"{path or 'the file'} = {value!r}; legal: {legal}"


def _locate(location: tuple[str | int, ...], data: Any) -> tuple[str, Any]:
    """The dotted path in the file and the value there; pydantic's union tags are no part of either."""
    path, value = [], data
    for i, step in enumerate(location):
        if step == "[key]":
            continue
        of_list = isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value)
        if of_list or (isinstance(value, dict) and step in value):
            path.append(str(step))
            value = value[step]
        elif i == len(location) - 1 and step not in FAMILIES and not _is_tag(step, value):
            path.append(str(step))
    return ".".join(path), value


def _is_tag(step: str | int, value: Any) -> bool:
    """Whether a step of pydantic's only says which kind of block this is."""
    return isinstance(value, dict) and step in (value.get("kind"), value.get("loss"))
