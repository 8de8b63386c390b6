"""What a study tries: ranges and choices by their names in a variant's block; and the block of one trial."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial
from pydantic import ValidationError

from lenet.params import loading
from lenet.params.loading import flatten
from lenet.params.schema import Params, Variant
from lenet.runtime.errors import ParamsError

DIGITS = 3  # significant ones of a number from a range: params.yaml is for reading
TAGS = ("kind", "loss")  # the name of a part's kind
FIXED = {"validation_size": "trials are compared on the same digits"}
CORNERS = 20_000  # combinations that are tried out beforehand, at most

Block = dict[str, Any]


def rounded(value: float, low: float, high: float) -> float:
    """To DIGITS significant digits, within the range."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


@dataclass(frozen=True)
class Part:
    """A whole part of the block: plain values, and domains."""

    content: Mapping[str, Any]


@dataclass(frozen=True)
class Kinds:
    """One of several parts, by its kind; its own domains' names hold that, as in ``optimizer.sgd.momentum``."""

    tag: str
    parts: Mapping[str, Part]


Domain = FloatDistribution | IntDistribution | CategoricalDistribution | Kinds
"""What stands in a space, and in its parts."""


def suggest(domain: Any, trial: BaseTrial, name: str) -> Any:
    """What a trial tries of a domain, a part or a plain value."""
    if isinstance(domain, CategoricalDistribution):
        return trial.suggest_categorical(name, list(domain.choices))
    if isinstance(domain, IntDistribution):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, FloatDistribution):
        return rounded(trial.suggest_float(name, domain.low, domain.high, log=domain.log), domain.low, domain.high)
    if isinstance(domain, Kinds):
        kind = trial.suggest_categorical(f"{name}.{domain.tag}", list(domain.parts))
        return suggest(domain.parts[kind], trial, f"{name}.{kind}")
    if isinstance(domain, Part):
        return {key: suggest(value, trial, f"{name}.{key}") for key, value in domain.content.items()}
    return domain


def distributions(domain: Any, name: str) -> Iterator[tuple[str, BaseDistribution]]:
    """All that a trial may be asked for of a domain, by Optuna's names."""
    if isinstance(domain, BaseDistribution):
        yield name, domain
    elif isinstance(domain, Kinds):
        yield f"{name}.{domain.tag}", CategoricalDistribution(tuple(domain.parts))
        for kind, part in domain.parts.items():
            yield from distributions(part, f"{name}.{kind}")
    elif isinstance(domain, Part):
        for key, value in domain.content.items():
            yield from distributions(value, f"{name}.{key}")


def corners(domain: Any) -> list[Any]:
    """All choices and the ends of ranges; of a plain value, itself."""
    if isinstance(domain, CategoricalDistribution):
        return list(domain.choices)
    if isinstance(domain, IntDistribution | FloatDistribution):
        return [domain.low, domain.high]
    if isinstance(domain, Kinds):
        return [corner for part in domain.parts.values() for corner in corners(part)]
    if isinstance(domain, Part):
        every = itertools.product(*map(corners, domain.content.values()))
        return [dict(zip(domain.content, values, strict=True)) for values in every]
    return [domain]


class Space:
    """A variant's entry in ``sweep.spaces``.

    Args:
        content: it.
        variant: the variant's name, for messages.

    Raises:
        ParamsError: it is none.
    """

    def __init__(self, content: Mapping[str, Any], variant: str) -> None:
        self.where = f"params.yaml: sweep.spaces.{variant}"
        if not content:
            raise ParamsError(f"{self.where}: empty; name at least one value of the block with its range or choices")
        self.domains: dict[str, Domain] = {}
        for name, found in content.items():
            domain = self._domain(found, name)
            if not isinstance(domain, Domain):
                raise ParamsError(f"{self.where}.{name} = {found!r}: {LEGAL}")
            self.domains[name] = domain

    def propose(self, trial: BaseTrial, base: Mapping[str, Any]) -> Block:
        """The block of a trial: ``base`` with what the trial suggests."""
        return self._with(base, {name: suggest(domain, trial, name) for name, domain in self.domains.items()})

    def distributions(self) -> dict[str, BaseDistribution]:
        """Everything that a trial may be asked for, by Optuna's names."""
        pairs = (distributions(domain, name) for name, domain in self.domains.items())
        return dict(itertools.chain.from_iterable(pairs))

    def rest(self, base: Mapping[str, Any]) -> Block:
        """What of a block is not tried: a study depends on it."""
        return self._with(base, dict.fromkeys(self.domains))

    def check(self, params: Params, variant: str) -> None:
        """Raise ParamsError unless every name is one of the block's, and every combination of extremes is legal."""
        base = params.variant(variant).model_dump()
        leaves = flatten(base)
        parts = {leaf.rpartition(".")[0] for leaf in leaves} - {""}
        for name, domain in self.domains.items():
            legal = sorted(parts) if isinstance(domain, Kinds) else [leaf for leaf in leaves if leaf not in FIXED]
            if name in FIXED:
                raise ParamsError(f"{self.where}.{name}: it is fixed, as {FIXED[name]}; legal: {', '.join(legal)}")
            if name not in legal:
                what = "part" if isinstance(domain, Kinds) else "value"
                raise ParamsError(f"{self.where}.{name}: names no {what} of {variant}; legal: {', '.join(legal)}")
            inner = next((other for other in self.domains if name.startswith(f"{other}.")), None)
            if inner:
                raise ParamsError(f"{self.where}.{name}: {inner} is chosen as a whole")
        for name, domain in self.domains.items():  # each by itself, to name the culprit
            for corner in corners(domain):
                self._validate(variant, self._with(base, {name: corner}), name, others=len(self.domains) > 1)
        for block in self.corners(base):
            self._validate(variant, block, "", others=False)

    def corners(self, base: Mapping[str, Any]) -> Iterator[Block]:
        """The blocks of all choices and all ends of ranges, but for those above CORNERS."""
        every = itertools.product(*map(corners, self.domains.values()))
        for values in itertools.islice(every, CORNERS):
            yield self._with(base, dict(zip(self.domains, values, strict=True)))

    def _validate(self, variant: str, block: Block, name: str, others: bool) -> None:
        """Others: a fault that lies between values may be mended by other values of the space."""
        if others and not self._alone(block):
            return
        content = {"seeds": [1], "compare": [variant], "data": {"order_seed": 0}, "sweep": {}}
        try:
            loading.validate(content | {"variants": {variant: block}}, self.where + (f".{name}" if name else ""))
        except ParamsError as error:
            first = str(error).splitlines()[0].replace(f"variants.{variant}.", "").replace(f"variants.{variant}", "")
            raise ParamsError(f"{first} (a value of this space)") from None

    def _alone(self, block: Block) -> bool:
        """Whether a block is illegal for one of its values alone."""
        try:
            Variant.model_validate(block)
        except ValidationError as error:
            return any(fault["loc"] for fault in error.errors())
        return False

    def _domain(self, found: Any, name: str) -> Any:
        """A domain, or a plain value."""
        if isinstance(found, Mapping):
            return self._range(found, name) if {"low", "high"} & found.keys() else self._part(found, name)
        if isinstance(found, Sequence) and not isinstance(found, str):
            if found and all(isinstance(one, Mapping) for one in found):
                return self._kinds(found, name)
            if len(found) < 2 or len({repr(one) for one in found}) < len(found):
                raise ParamsError(f"{self.where}.{name} = {found!r}: choices are at least two, and different")
            if any(not isinstance(one, str | int | float | bool) for one in found):
                raise ParamsError(f"{self.where}.{name} = {found!r}: choices are all plain values, or all parts")
            return CategoricalDistribution(tuple(found))
        return found

    def _range(self, found: Mapping[str, Any], name: str) -> FloatDistribution | IntDistribution:
        where = f"{self.where}.{name}"
        if set(found) != {"low", "high", "scale"}:
            raise ParamsError(f"{where}: a range has low, high and scale, not {', '.join(found)}")
        low, high, scale = found["low"], found["high"], found["scale"]
        for key, value in (("low", low), ("high", high)):
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                raise ParamsError(f"{where}.{key} = {value!r}; legal: a number")
        if scale not in ("linear", "log"):
            raise ParamsError(f"{where}.scale = {scale!r}; legal: 'linear', 'log'")
        if not low < high:
            raise ParamsError(f"{where}: low = {low} must be less than high = {high}")
        if scale == "log" and low <= 0:
            raise ParamsError(f"{where}: low = {low} has no logarithm; a logarithmic range begins above 0")
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(low, high, log=scale == "log")

    def _part(self, found: Mapping[str, Any], name: str) -> Part:
        return Part({key: self._domain(value, f"{name}.{key}") for key, value in found.items()})

    def _kinds(self, found: Sequence[Mapping[str, Any]], name: str) -> Kinds:
        tag = next((tag for tag in TAGS if all(tag in one for one in found)), None)
        kinds = [one.get(tag) for one in found] if tag else []
        if tag is None or len(found) < 2 or len(set(kinds)) < len(kinds):
            raise ParamsError(f"{self.where}.{name}: parts to choose from are two or more, each of another kind")
        return Kinds(tag, {one[tag]: self._part(one, f"{name}.{one[tag]}") for one in found})

    @staticmethod
    def _with(base: Mapping[str, Any], values: Mapping[str, Any]) -> Block:
        block = copy.deepcopy(dict(base))
        for name, value in values.items():
            *path, last = name.split(".")
            place = block
            for step in path:
                place = place[step]
            place[last] = value
        return block


LEGAL = "legal: {low: …, high: …, scale: linear or log}, a list of values, or a list of parts, each of another kind"
