"""Several seeds trained side by side: each gets what it gets alone, whatever happens to the others."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from conftest import Stop, Stopping
from lenet import tracking
from lenet.digits.data import Digits
from lenet.params.schema import Params, Variant
from lenet.pipeline.train import train
from lenet.runtime.errors import Diverged
from lenet.tracking import recorder
from lenet.training.checkpoint import Checkpoints
from lenet.training.fast_module import Training
from lenet.training.fit import Fitted, fit, fit_all, fitted
from lenet.training.signature import changed, miniature

pytestmark = pytest.mark.usefixtures("unsigned")

VARIANTS = [
    "original-sigmoid", "original-tanh", "modern", "lecun1998", "lecun1998-distorted", "overview", "frontier-distorted",
]  # fmt: skip


def small(variant: Variant) -> Variant:
    """Three epochs of few updates, the last of each smaller than the others."""
    section = variant.optimizer.model_dump(mode="json")
    few = section | ({"patterns": 30} if "patterns" in section else {})
    block = miniature(changed(variant, batch_size=min(24, variant.batch_size), optimizer=few), 150)
    return block.model_copy(update={"train_size": block.train_size - 1, "validation_size": 30})


def parts(variant: Variant, digits: Digits) -> tuple[Digits, Digits]:
    return digits[30 : 30 + variant.train_size], digits[:30]


def alone(variant: Variant, seed: int, digits: Digits) -> Fitted:
    return fit(variant, seed, *parts(variant, digits), snapshots=True)


def together(variant: Variant, trainings: Sequence[Training], digits: Digits, *callbacks: Checkpoints) -> list[int]:
    """Their seeds, as they end."""
    return [its.seed for its in fit_all(variant, trainings, *parts(variant, digits), callbacks)]


def seated(variant: Variant, *seeds: int) -> list[Training]:
    return [Training(variant, seed, variant.train_size, snapshots=True) for seed in seeds]


def same(one: Fitted, other: Fitted) -> bool:
    tensors = [
        {**its.weights, "trace": its.trace} | {f"s.{n}": t for n, t in its.snapshots.items()} for its in (one, other)
    ]
    return (
        one.history == other.history
        and [*tensors[0]] == [*tensors[1]]
        and all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_each_gets_the_bits_that_it_gets_alone(params: Params, digits: Digits, name: str) -> None:
    variant = small(params.variants[name])
    ones = {seed: alone(variant, seed, digits) for seed in (1, 2, 3, 4, 5)}
    for seeds in ((2, 5), (1, 2, 3, 4, 5)):
        trainings = seated(variant, *seeds)
        assert together(variant, trainings, digits) == [*seeds]
        for its in trainings:
            assert same(fitted(its), ones[its.seed]), (its.seed, len(seeds))


@pytest.mark.parametrize("name", ["original-tanh", "modern", "lecun1998", "frontier"])
def test_a_checkpoint_made_side_by_side_serves_alone_and_the_other_way_round(
    params: Params, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Seeds that stand at different places are trained one group after another."""
    variant = small(params.variants[name])
    train_set, validation_set = parts(variant, digits)
    ones = {seed: alone(variant, seed, digits) for seed in (1, 2, 3)}
    folders = {seed: tmp_path / str(seed) for seed in ones}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr("lenet.training.checkpoint.SECONDS", 0.0)
    keeping = [Checkpoints(folders[1], "one", 1), Stopping(folders[2], "two", 3, seed=2)]
    with pytest.raises(Stop):
        together(variant, seated(variant, 1, 2), digits, *keeping)
    with pytest.raises(Stop):
        fit(variant, 3, train_set, validation_set, callbacks=[Stopping(folders[3], "three", 2)], snapshots=True)
    states = {seed: Checkpoints(folder, "it").latest(with_snapshots=True) for seed, folder in folders.items()}
    assert states[1]
    assert states[2]
    assert states[3]
    assert (states[1].epoch, states[1].step) == (states[2].epoch, states[2].step) > (states[3].epoch, states[3].step)
    assert same(fit(variant, 1, train_set, validation_set, start=states[1], snapshots=True), ones[1])
    states[1] = Checkpoints(folders[1], "it").latest(with_snapshots=True)
    trainings = [Training(variant, seed, variant.train_size, start=states[seed], snapshots=True) for seed in (3, 1, 2)]
    together(variant, trainings, digits)
    for its in trainings:
        assert same(fitted(its), ones[its.seed]), its.seed


def steep(variant: Variant, lr: float) -> Variant:
    """A block with which some seeds diverge and others do not."""
    sizes = {"batch_size": 12, "train_size": 143, "validation_size": 30, "epochs": 3}
    return changed(variant, optimizer={"kind": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 0.0}, **sizes)


@pytest.mark.parametrize(
    ("name", "lr", "diverged"), [("modern", 5, [2, 4, 5]), ("modern", 12, [4, 1]), ("overview-relu", 30, [1, 4])]
)
def test_those_that_diverge_say_what_they_say_alone_and_leave_the_others_alone(
    params: Params, digits: Digits, name: str, lr: float, diverged: list[int]
) -> None:
    """In a forward pass, a backward pass, at the outputs and in the loss; in several updates, and two in one chunk."""
    variant = steep(params.variants[name], lr)
    trainings = seated(variant, 1, 2, 3, 4, 5)
    ended = together(variant, trainings, digits)
    assert ended[: len(diverged)] == diverged
    for its in trainings:
        (one,) = seated(variant, its.seed)
        together(variant, [one], digits)
        assert str(its.fault) == str(one.fault)
        assert bool(its.fault) == (its.seed in diverged)
        assert its.fault or same(fitted(its), fitted(one)), its.seed


def test_the_norms_of_the_others_have_not_moved(params: Params, digits: Digits) -> None:
    """The first's running means are those of its updates, though one was begun that the second could not finish."""
    variant = small(params.variants["frontier"])
    trainings = seated(variant, 1, 2)
    with torch.no_grad():
        for parameter in trainings[1].network.parameters():
            parameter.mul_(2.0**25)
    assert together(variant, trainings, digits) == [2, 1]
    assert "N3: a magnitude of" in str(trainings[1].fault)
    assert same(fitted(trainings[0]), alone(variant, 1, digits))


def test_the_stage_records_each_as_a_run_of_its_own(
    params: Params, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of those that end well, FAILED in MLflow of those that diverge, one line for each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(recorder, "PATIENCE", 300.0)  # a busy machine's store answers late: not the subject
    variant = steep(params.variants["modern"], 5.0)
    few = params.model_copy(update={"variants": {"modern": variant}})
    data, outs = prepared / "train.safetensors", {seed: tmp_path / f"modern-{seed}" for seed in (1, 2, 3)}
    with pytest.raises(Diverged, match="of 3 trainings these have diverged: modern-2"):
        train(few, "modern", outs, data, None, "lenet5")
    assert not outs[2].exists()
    for seed in (1, 3):
        train(few, "modern", {seed: tmp_path / "alone"}, data, None, None)
        assert {path.name: path.read_bytes() for path in outs[seed].iterdir()} == {
            path.name: path.read_bytes() for path in (tmp_path / "alone").iterdir()
        }
    said = capsys.readouterr().err
    assert "lenet: modern-2: the training diverged: C3.weight: a magnitude of" in said
    assert "modern-3: epoch 3/3" in said
    client = tracking.open_store()
    experiment = client.get_experiment_by_name("lenet5")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "modern-1": "FINISHED", "modern-2": "FAILED", "modern-3": "FINISHED",
    }  # fmt: skip
    for run in runs:
        if run.info.status == "FINISHED":
            losses = client.get_metric_history(run.info.run_id, "train/loss")
            history = pd.read_csv(tmp_path / run.info.run_name / "history.csv")
            assert [(point.step, point.value) for point in losses] == [
                *zip(history["epoch"], history["train/loss"], strict=True)
            ]
