"""The published result computed again: a clean copy of a commit, forced, and judged by its lock and metrics."""

from collections.abc import Callable, Sequence

from lenet.evaluation.judge import Part
from lenet.params import loading
from lenet.reproduce import sources, verify, workplace


def compute(revision: str, names: Sequence[str], jobs: int, tell: Callable[[str], None]) -> list[Part]:
    """Execute a commit's pipeline in a clean copy of it, and judge what comes out by what the commit says.

    Args:
        revision: the commit.
        names: runs, as ``<variant>-<seed>``; none for all of the pipeline.
        jobs: stages at once.
        tell: called with each line of progress.

    Raises:
        InputError: no such commit or run, or its stages fail here.
    """
    commit = sources.commit(revision)
    with workplace.of(commit, build_environment=False) as place:
        params = loading.load(place.project / "params.yaml")
        verify.published(params, revision, names)
        (place.project / "dvc.lock").unlink(missing_ok=True)  # what is there afterwards was computed
        for folder in (verify.METRICS, verify.SIGNATURES):
            for path in (place.project / folder).glob("*.json"):
                path.unlink()
        stages = ["-m", "dvc", "repro", "--force", *(f"evaluate@{name}" for name in names)]
        whole = ["-m", "lenet", "repro", "--jobs", str(jobs), "--no-track"]
        place.run(*(stages if names else whole), tell=tell, LENET_DATA_DIR=str(place.digits()))
        return verify.verify(params, revision, place.project, names)
