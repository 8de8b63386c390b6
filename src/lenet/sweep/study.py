"""What a study is a function of, what it asks next, and which trials it stops: all of it decided by the batches before.

A batch has a fixed size. Its trials are proposed by a sampler seeded for this batch, and pruned, from what is known of
all earlier batches and nothing else. So neither interruptions nor the number of workers change a trial, which is known
by its number from 0.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet.arithmetic.randomness import derive
from lenet.digits.data import Digits
from lenet.networks import layer_table
from lenet.params.schema import Params, Variant
from lenet.pipeline import signing
from lenet.runs.record import History
from lenet.sweep.settings import MedianPruner, NoPruner, Random, Settings
from lenet.sweep.space import Space, corners, rounded
from lenet.training import signature

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

RUNG = "completed_rung_"
"""Optuna's attributes of a trial that successive halving has looked at."""
STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Plan:
    """Everything that a study's trials are a function of.

    Attributes:
        variant: the variant's name.
        settings: ``sweep`` of params.yaml without spaces and the number of trials, which may grow.
        space: the variant's entry in ``sweep.spaces``.
        base: the variant's block; null where the space has something.
        data: digest of all training digits.
        signature: of ``example``; each trial's run.key holds that of its own structure. Empty in a study from before.
        packages: the version of Optuna, which proposes; in a study from before those of others, too.
    """

    variant: str
    settings: dict[str, Any]
    space: dict[str, Any]
    base: dict[str, Any]
    data: str
    signature: str
    packages: dict[str, str]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Plan":
        """A plan as ``to_json`` gave it. One from before may have one seed, and a digest of sources for a signature.

        The latter's block may lack what blocks could not say then; it was so.
        """
        known = {name: part for name, part in content.items() if name != "source"}
        if "run_seed" in content["settings"]:
            known["settings"] = {**content["settings"]}
            known["settings"]["seeds"] = [known["settings"].pop("run_seed")]
        if "source" in content:
            base = content["base"]
            initialisation = {"biases": "zero"} | base["initialisation"]
            known |= {"signature": "", "base": {"order": "shuffled"} | base | {"initialisation": initialisation}}
        return cls(**known)

    @property
    def example(self) -> Variant:
        """A block of the space: the first of its choices, and the lower ends of its ranges."""
        return Variant.model_validate(next(self.domains.corners(self.base)))

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The study's, unless it is given another."""
        return f"{self.variant}-{self.digest[:8]}"

    @property
    def batch(self) -> int:
        return self.made.batch

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.made.seeds

    @property
    def objectives(self) -> list[str]:
        return list(self.settings["objectives"])

    @property
    def made(self) -> Settings:
        """``settings``, checked."""
        return Settings.model_validate(self.settings | {"trials": 1, "spaces": {}})

    @property
    def domains(self) -> Space:
        return Space(self.space, self.variant)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def differences(self, other: "Plan") -> list[str]:
        """What the two do not share, in words."""
        words = {"data": "the training digits", "signature": "what the code computes", "packages": "Optuna"}
        mine, others = asdict(self), asdict(other)
        found = [words.get(part, part) for part in mine if mine[part] != others[part] and part != "settings"]
        return found + [name for name, value in self.settings.items() if other.settings.get(name) != value]


def plan(params: Params, settings: Settings, variant: str, digits: Digits) -> Plan:
    """The plan of a variant's study here.

    Args:
        params: the blocks of variants.
        settings: ``sweep`` of params.yaml.
        variant: the variant's name.
        digits: all training digits.

    Raises:
        ParamsError: no such variant, no space for it, or it holds no digits out.
    """
    block = params.variant(variant)
    settings.check(block, variant)
    kept = settings.model_dump(mode="json", exclude={"trials", "spaces"})
    space = settings.spaces[variant]
    base = Space(space, variant).rest(block.model_dump(mode="json"))
    made = Plan(variant, kept, json.loads(json.dumps(space)), base, signature.digits_sha256(digits), "", packages())
    return replace(made, signature=signing.of_trial(made.example, digits))


def packages() -> dict[str, str]:
    """The version of Optuna here."""
    return {"optuna": metadata.version("optuna")}


def proposals(plan: Plan, history: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The trials of the batch that follows, to be executed.

    Args:
        plan: the study's.
        history: all trials of the batches before, in order.
        count: how many, of the batch's size at most.
    """
    study = _memory(plan, history, _sampler(plan, len(history)))
    domains, found = plan.domains, []
    for _ in range(count):
        trial = study.ask()
        block = domains.propose(trial, plan.base)
        params = {name: _rounded(trial.distributions[name], value) for name, value in trial.params.items()}
        found.append(
            create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions=trial.distributions,
                user_attrs={"block": block},
            )
        )
    return found


class Judge:
    """Whether a trial is to be stopped.

    Args:
        plan: the study's.
        history: all trials of the batches before its own, in order.
        number: the trial's.
    """

    def __init__(self, plan: Plan, history: Sequence[FrozenTrial], number: int) -> None:
        self.study = _memory(plan, history, optuna.samplers.RandomSampler(0))
        for _ in range(number - len(history) + 1):  # of those beside it nothing is known
            self.trial = self.study.ask()

    def stops(self, epoch: int, error: float) -> bool:
        """Whether it ends after this epoch (from 1) with this validation error; never, of several objectives."""
        if len(self.study.directions) > 1:
            return False
        self.trial.report(error, epoch)
        return self.trial.should_prune()

    @property
    def rungs(self) -> dict[str, Any]:
        """What the pruner has noted of the trial; the batches after have to know it."""
        attrs = self.study.get_trials(deepcopy=False)[-1].system_attrs
        return {name: value for name, value in attrs.items() if name.startswith(RUNG)}


def objective_values(names: Sequence[str], block: Variant, history: History) -> list[float]:
    """A complete trial's values."""
    totals = layer_table.totals(block.network)
    known = {"validation/error": float(history[-1]["validation/error"])} | {n: float(v) for n, v in totals.items()}
    return [known[name] for name in names]


def earlier(trials: Sequence[FrozenTrial], batch: int, number: int) -> list[FrozenTrial]:
    """Of all trials, in order, those of the batches before a trial's own."""
    return list(trials[: number // batch * batch])


def blank(plan: Plan) -> optuna.Study:
    """A study in memory, without trials."""
    return optuna.create_study(
        study_name=plan.digest, directions=["minimize"] * len(plan.objectives), pruner=_pruner(plan)
    )


def _memory(plan: Plan, history: Sequence[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    study = blank(plan)
    study.sampler = sampler
    study.add_trials(history)
    return study


def _sampler(plan: Plan, first: int) -> BaseSampler:
    section = plan.made.sampler
    seed = derive(plan.made.seed, "trials", first) % 2**32
    if isinstance(section, Random):
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=section.startup, multivariate=True, group=True)


def _pruner(plan: Plan) -> BasePruner:
    section = plan.made.pruner
    if isinstance(section, NoPruner):
        return optuna.pruners.NopPruner()
    if isinstance(section, MedianPruner):
        return optuna.pruners.MedianPruner(n_startup_trials=section.startup, n_warmup_steps=section.first)
    if section.kind == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=section.first, reduction_factor=section.keep)
    domain = plan.domains.domains.get("epochs")
    epochs = plan.base["epochs"] or max(corners(domain) if domain else [1])
    return optuna.pruners.HyperbandPruner(
        min_resource=section.first, max_resource=int(epochs), reduction_factor=section.keep
    )


def _rounded(distribution: BaseDistribution, value: Any) -> Any:
    """As it stands in the block."""
    if isinstance(distribution, FloatDistribution):
        return rounded(value, distribution.low, distribution.high)
    return value
