"""A trial's block into params.yaml: what differs is replaced in the text, and nothing else of it is touched."""

import difflib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from lenet.params import loading
from lenet.params.loading import flatten
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_text
from lenet.sweep.result import Result


def promote(result: Result, number: int | None, root: Path) -> str:
    """Write a trial's block into the params.yaml that has its variant, in place of that.

    Returns the difference as a unified diff, or that there is none.

    Args:
        result: the study.
        number: the trial's; None for the best one.
        root: the root's params.yaml.

    Raises:
        InputError: no such trial, several objectives and no number, the rest of the block has changed since, or it
            shares values with others, as YAML's aliases do.
    """
    trial = _choose(result, number)
    path = loading.home_of(result.plan.variant, root)
    block, now = result.block(trial), loading.load(root).variant(result.plan.variant).model_dump(mode="json")
    base = result.plan.domains.rest(now)
    if base != result.plan.base:
        before, after = flatten(result.plan.base), flatten(base)
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        where = f"{path.relative_to(root.parent)}: variants.{result.plan.variant}"
        raise InputError(f"{where} is not what study {result.name} was made with; changed since: {', '.join(names)}")
    if block == now:
        return f"{path}: variants.{result.plan.variant} is already trial {trial.number} of study {result.name}"
    text = path.read_text(encoding="utf-8")
    changed = text
    try:
        for place, value in _changes(now, block, ("variants", result.plan.variant)):
            changed = _replace(changed, place, value)
        if _as_dvc_writes(text) == text:
            changed = _as_dvc_writes(changed)
        found = loading.parse(changed, str(path))
    except (InputError, LookupError):
        found = {}
    expected = loading.parse(text, str(path))
    expected["variants"][result.plan.variant] = block
    if found != expected:
        raise InputError(
            f"{path}: variants.{result.plan.variant} cannot be changed by itself; write it without anchors and aliases"
        )
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
    node = loading.parse(text, str(loading.PATH), YAML().compose)
    for name in place:
        node = _child(node, name)
    if _is_block(node):
        lines = [f"{name}: {_flow(one)}" for name, one in value.items()]
        new = f"\n{' ' * node.start_mark.column}".join(lines)
    else:
        new = _flow(value)
    return text[: node.start_mark.index] + new + text[_end(node) :]


def _as_dvc_writes(text: str) -> str:
    """The file after `dvc exp run -S`, which breaks long lines and makes lists blocks: it then changes only its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(text, encoding="utf-8")
        apply_overrides(path, [])
        return path.read_text(encoding="utf-8")


def _is_block(node: Node) -> bool:
    return isinstance(node, MappingNode) and not node.flow_style


def _child(node: Node, name: str) -> Node:
    return {key.value: value for key, value in node.value}[name]


def _end(node: Node) -> int:
    """Where its last value ends; a mapping in block style reaches to the next key, over comments between."""
    while _is_block(node):
        node = node.value[-1][1]
    return node.end_mark.index


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
