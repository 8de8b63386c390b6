"""Job publish: what an experiment's runs come to → its result.json."""

from pathlib import Path

from lenet.experiments import ladder, paper, sizes
from lenet.params import loading
from lenet.params.schema import Params
from lenet.runtime import layout
from lenet.runtime.errors import InputError, ParamsError


def publish(params: Params, home: Path) -> None:
    """Write an experiment's result. Its params.yaml tells its kind: ``chains`` of changes, ``curves``, the paper.

    Args:
        params: all variants' blocks.
        home: the experiment's folder.

    Raises:
        InputError: no such experiment; a run is missing or faulty; what its kind of experiment refuses.
    """
    path, out = home / "params.yaml", home / "result.json"
    if not path.exists():
        raise InputError(f"{path} is not here; experiments: {', '.join(one.name for one in layout.homes()[1:])}")
    content, folders = loading.read(path), [layout.of_main(layout.RUNS), home / layout.RUNS]
    train = layout.of_main(layout.TRAIN)
    if "chains" in content:
        ladder.publish(params, path, folders, out)
    elif "curves" in content:
        sizes.publish(params, path, folders, out)
    elif "baselines" in content:
        paper.publish(params, path, folders, home / layout.METRICS, home / "baselines", train, out)
    else:
        raise ParamsError(f"{path}: nothing says what is published; legal: chains, curves or baselines")
