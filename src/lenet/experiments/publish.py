"""Job publish: what an experiment's runs come to → its result.json."""

from pathlib import Path

from lenet.experiments.experiment import Answers, Experiment
from lenet.experiments.ladder import Ladder
from lenet.experiments.paper import Paper
from lenet.experiments.sizes import Sizes
from lenet.params import loading
from lenet.params.schema import Params
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError, ParamsError
from lenet.runtime.files import write_json

KINDS: dict[str, type[Experiment]] = {"chains": Ladder, "curves": Sizes, "baselines": Paper}
"""By the key that an experiment's params.yaml has beside those of all."""


def load(home: Path) -> Experiment:
    """Read and validate an experiment's params.yaml. Raises InputError where there is none, or it is at fault."""
    path = home / loading.PATH
    if not path.exists():
        raise InputError(f"{path} is not here; experiments: {', '.join(one.name for one in layout.homes()[1:])}")
    content = loading.read(path)
    kind = next((kind for key, kind in KINDS.items() if key in content), None)
    if not kind:
        raise ParamsError(f"{path}: nothing says what is published; legal: {', '.join(KINDS)}")
    return loading.checked(kind, content, path)


def publish(params: Params, home: Path) -> None:
    """Write an experiment's result.

    Args:
        params: all variants' blocks.
        home: the experiment's folder.

    Raises:
        InputError: no such experiment; a run is missing or faulty, or runs are of mixed arithmetic; what its kind of
            experiment refuses.
    """
    experiment = load(home)
    answers = Answers(params, [layout.of_main(layout.RUNS), home / layout.RUNS], experiment.seeds)
    content = experiment.result(answers, home)
    processes.check()
    write_json(home / "result.json", content)
