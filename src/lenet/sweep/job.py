"""`lenet sweep VARIANT`: a study from its settings to what is published of it."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optuna.trial import FrozenTrial

from lenet import tracking
from lenet.arithmetic import conformance
from lenet.cluster import Client, Workers, admitted
from lenet.digits.data import load_digits
from lenet.params.schema import Params
from lenet.sweep import report, result
from lenet.sweep import storage as storages
from lenet.sweep.coordinator import Coordinator, Trials
from lenet.sweep.display import Display
from lenet.sweep.result import Result
from lenet.sweep.settings import Settings
from lenet.sweep.study import STATES, plan
from lenet.sweep.trial import prove


@dataclass(frozen=True)
class Options:
    """What a call may choose beside params.yaml.

    Attributes:
        trials: how many; None for what params.yaml says.
        client: opens the cluster whose workers compute, or tells the one that is open.
        address: the storage's.
        name: the study's; None for one that follows from what it is made of.
        data: the file of training digits.
        out: the folder of what is published; None for nothing.
        track: record in MLflow.
        take_over: from a coordinator of another machine.
    """

    trials: int | None
    client: Callable[[], Client]
    address: str
    name: str | None
    data: Path
    out: Path | None
    track: bool
    take_over: bool = False


def sweep(params: Params, made: Settings, variant: str, options: Options) -> Result:
    """Compute a variant's study, or go on with it; return it when all of its trials have ended.

    Args:
        params: the blocks of variants.
        made: how studies are made.
        variant: the variant's name.
        options: what the call has chosen.

    Raises:
        InputError: settings, digits, arithmetic or storage are not fit for it.
    """
    digits = load_digits(options.data)
    conformance.check()
    of = plan(params, made, variant, digits)
    storage = storages.connect(options.address)
    name, count = options.name or of.name, options.trials or made.trials
    study_id = storages.begin(storage, name, of)
    published = [options.out / file for file in result.FILES] if options.out else []
    settings = {"variant": variant, **of.settings, "space": of.space}
    show, seen = Display(name, count), list[FrozenTrial]()

    def see(trials: Trials) -> None:
        show(trials)
        seen[:] = [trial for trial in trials if trial.state.is_finished()]
        begin()

    def known() -> tuple[list[tracking.TrialRecord], list[int]]:
        ended = Result(name, of, list(seen))
        return [_record(trial) for trial in ended.trials], [trial.number for trial in ended.best]

    with ExitStack() as stack:
        record = tracking.StudyRecord(name, variant, " ".join(map(str, of.seeds)), settings, known)
        recording = tracking.study(record, published) if options.track else nullcontext(lambda: None)
        begin = stack.enter_context(recording)
        stack.enter_context(storages.asking(f"study {name}"))

        def workers() -> AbstractContextManager[Workers]:
            return admitted(options.client(), digits, partial(prove, of))

        Coordinator(storage, name, study_id, of, count, workers, see, options.take_over).run()
        found = result.of_storage(storage, name)
        if options.out:
            result.publish(found, options.out)
    return found


def _record(trial: FrozenTrial) -> tracking.TrialRecord:
    began, ended = trial.datetime_start, trial.datetime_complete
    assert began
    assert ended
    return tracking.TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        block=trial.user_attrs["block"],
        fingerprints=trial.user_attrs.get("fingerprints", {}),
        rows=trial.user_attrs.get("history", []),
        reason=trial.user_attrs.get("reason", ""),
        started=int(1000 * began.timestamp()),
        ended=int(1000 * ended.timestamp()),
    )


def tell(found: Result) -> None:
    """The outcome on standard output, and what may come next on standard error."""
    from lenet.runtime.screen import Screen

    Screen().print(report.best_table(found))
    more = f"`lenet sweep show {found.name}` tells what mattered"
    if found.best:
        more += f"; `lenet sweep promote {found.name}` writes the winner into params.yaml"
    print(more, file=sys.stderr)
