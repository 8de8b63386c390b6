"""What is published of a study: its trials as CSV, the best as JSON, and its plan; from them it can be read again.

Nothing in these files depends on when, where or how often interrupted it was computed.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet.params.loading import flatten
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, reason, write_json, write_text
from lenet.sweep import storage as storages
from lenet.sweep.study import STATES, Plan, blank

TRIALS, BEST, STUDY = FILES = ("trials.csv", "best.json", "study.json")
PUBLISHED = layout.EXPERIMENTS / "sweeps" / "studies"
_BY_NAME = {name: state for state, name in STATES.items()}


@dataclass(frozen=True)
class Result:
    """A study as far as it has come.

    Attributes:
        name: the study's.
        plan: what its trials are a function of.
        trials: those that have ended, in order.
    """

    name: str
    plan: Plan
    trials: Sequence[FrozenTrial]

    @property
    def study(self) -> optuna.Study:
        """As one of Optuna's, in memory."""
        study = blank(self.plan)
        study.set_metric_names(self.plan.objectives)
        study.add_trials(self.trials)
        return study

    @property
    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    @property
    def best(self) -> list[FrozenTrial]:
        """The trials that no other one excels: one, or with several objectives the front, by number."""
        if len(self.plan.objectives) > 1:
            front = {trial.number for trial in self.study.best_trials} if self.complete else set()
            return [trial for place, trial in enumerate(self.trials) if place in front]  # some may yet be missing
        return [min(self.complete, key=lambda trial: (trial.value, trial.number))] if self.complete else []

    @property
    def counts(self) -> dict[str, int]:
        """Of trials by their state."""
        found = Counter(STATES[trial.state] for trial in self.trials)
        return {state: found[state] for state in ("complete", "pruned", "failed")}

    @property
    def epochs(self) -> int:
        """That were trained in all."""
        return sum(len(trial.intermediate_values) for trial in self.trials)

    def block(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's block, resolved."""
        return dict(trial.user_attrs["block"])

    def tried(self, trial: FrozenTrial) -> dict[str, Any]:
        """What of a trial's block the study has chosen, by dotted names."""
        base = flatten(self.plan.base)
        return {name: value for name, value in flatten(self.block(trial)).items() if base.get(name) is None}


def of_storage(storage: BaseStorage, name: str) -> Result:
    """A study of a storage. Raises InputError if it is not there."""
    known = storages.names(storage)
    if name not in known:
        raise InputError(f"no study {name}; there are: {', '.join(known) or 'none'}")
    trials = storage.get_all_trials(known[name], deepcopy=False)
    ended = sorted((t for t in trials if t.state.is_finished()), key=lambda trial: trial.number)
    return Result(name, storages.plan_of(storage, known[name]), ended)


def publish(result: Result, folder: Path) -> None:
    """Write the three files, the plan last."""
    write_text(folder / TRIALS, _to_csv(result))
    best = [
        {
            "trial": trial.number,
            **dict(zip(result.plan.objectives, trial.values, strict=True)),
            "parameters": result.tried(trial),
            "run.key": trial.user_attrs["fingerprints"]["key"],
            "weights.sha256": trial.user_attrs["history"][-1]["weights.sha256"],
        }
        for trial in result.best
    ]
    one = len(result.plan.objectives) == 1 and best
    counts = {**result.counts, "epochs": result.epochs}
    write_json(folder / BEST, {"trials": counts, "best": best[0] if one else best})
    write_json(folder / STUDY, {"study": result.name, "plan": result.plan.to_json()})


def of_folder(folder: Path) -> Result:
    """A published study. Raises InputError if it is none."""
    try:
        content = json.loads((folder / STUDY).read_text(encoding="utf-8"))
        plan = Plan.read(content["plan"])
        rows = pd.read_csv(folder / TRIALS, dtype=str, keep_default_na=False).to_dict("records")
        return Result(content["study"], plan, [_from_row(row, plan) for row in rows])
    except OSError as error:
        raise InputError(f"{folder / Path(error.filename).name}: {error.strerror}") from None
    except FAULTY as error:
        raise InputError(f"{folder}: holds no published study ({reason(error)})") from None


def _to_csv(result: Result) -> str:
    """A row for each trial; ``best`` is the smallest error of complete trials so far.

    ``errors`` are those by epoch, ``train.errors`` those on the fly while training.
    """
    names = list(dict.fromkeys(name for trial in result.trials for name in trial.params))
    rows, best = [], None
    for trial in result.trials:
        history = trial.user_attrs.get("history") or []
        values = list(trial.values) if trial.state == TrialState.COMPLETE else None
        if values:
            best = values[0] if best is None else min(best, values[0])
        rows.append(
            {
                "trial": trial.number,
                "state": STATES[trial.state],
                **{name: values[i] if values else "" for i, name in enumerate(result.plan.objectives)},
                "best": "" if best is None else best,
                "epochs.trained": len(trial.intermediate_values),  # a study may try ``epochs``
                **{name: trial.params.get(name, "") for name in names},
                "reason": trial.user_attrs.get("reason", ""),
                "errors": " ".join(repr(error) for _, error in sorted(trial.intermediate_values.items())),
                "train.errors": " ".join(repr(row["train/error"]) for row in history if "train/error" in row),
                "weights.sha256": history[-1]["weights.sha256"] if history else "",
                "run.key": trial.user_attrs.get("fingerprints", {}).get("key", ""),
            }
        )
    text = io.StringIO()
    pd.DataFrame(rows, dtype=object).to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()


def _from_row(row: dict[str, str], plan: Plan) -> FrozenTrial:
    domains = plan.domains
    known = domains.distributions()
    distributions = {name: known[name] for name in known if row.get(name, "") != ""}
    params = {name: _value(distribution, row[name]) for name, distribution in distributions.items()}
    state = _BY_NAME[row["state"]]
    errors = {i: float(error) for i, error in enumerate(row["errors"].split(), start=1)}
    values = [float(row[name]) for name in plan.objectives] if state == TrialState.COMPLETE else None
    if state == TrialState.PRUNED:
        values = [errors[max(errors)]]
    trained = [{"train/error": float(error)} for error in row.get("train.errors", "").split()] or [{} for _ in errors]
    attrs: dict[str, Any] = {
        "fingerprints": {"key": row["run.key"]},
        "history": [{"validation/error": error} | its for error, its in zip(errors.values(), trained, strict=True)],
    }
    if row["reason"]:
        attrs["reason"] = row["reason"]
    if attrs["history"]:
        attrs["history"][-1]["weights.sha256"] = row["weights.sha256"]
    trial = create_trial(
        state=state, values=values, params=params, distributions=distributions, user_attrs=attrs,
        intermediate_values=errors,
    )  # fmt: skip
    trial.set_user_attr("block", domains.propose(optuna.trial.FixedTrial(params), plan.base))
    trial.number = int(row["trial"])
    return trial


def _value(distribution: BaseDistribution, text: str) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return {str(choice): choice for choice in distribution.choices}[text]
    return int(text) if isinstance(distribution, IntDistribution) else float(text)


def find(name: str, address: str) -> Result:
    """A study by its name, a folder of a published one, or a variant: its last study here, or its published one.

    Args:
        name: any of these.
        address: the storage's.

    Raises:
        InputError: there is none.
    """
    if (Path(name) / STUDY).exists():
        return of_folder(Path(name))
    storage = storages.connect(address)
    known = storages.names(storage)
    own = [study for study, number in known.items() if storages.plan_of(storage, number).variant == name]
    published = PUBLISHED / name
    if name not in known and not own and (published / STUDY).exists():
        return of_folder(published)
    if name not in known and not own:
        some = [*known, *(path.parent.name for path in sorted(PUBLISHED.glob(f"*/{STUDY}")))]
        raise InputError(f"no study {name}; there are: {', '.join(some) or 'none'}")
    return of_storage(storage, name if name in known else max(own, key=known.__getitem__))
