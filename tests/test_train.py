"""Trainings: what they compute, that they repeat, and that nothing beside them changes a bit."""

import inspect
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import nn

import lenet
import reference
from conftest import ROOT, run
from lenet import networks
from lenet.arithmetic.randomness import derive
from lenet.digits.data import Digits, shuffled, to_inputs
from lenet.digits.distortion import distort, draw
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import Params, Variant
from lenet.pipeline.train import train
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking import recorder
from lenet.training import fingerprint, levenberg, objective, optimizer
from lenet.training.fit import fit


def small(variant: Variant, **changes: object) -> Variant:
    sizes = {"epochs": 2, "train_size": 330, "validation_size": 70, "batch_size": 32}
    return variant.model_copy(update=sizes | changes)


def small_params(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"variants": {n: small(v, **changes) for n, v in params.variants.items()}})


@pytest.fixture(params=["original-sigmoid", "original-tanh", "modern"])
def variant(request: pytest.FixtureRequest, params: Params) -> Variant:
    return small(params.variants[request.param])


CLUSTERS = {
    "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "wrap", "SLURM_JOB_ID": "1", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "n[1-2]",
    "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1",
    "MASTER_PORT": "12910", "STANDALONE_PORT": "12910", "TORCHELASTIC_RUN_ID": "1", "KUBERNETES_PORT": "tcp://n1",
    "LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "ranks", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_RANK": "1",
    "JSM_NAMESPACE_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "2",
}  # fmt: skip
"""What schedulers tell the second process of two."""


def test_no_variable_of_the_environment_changes_a_training(
    params: Params, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = small(params.variants["modern"])
    seen: list[list[float]] = []

    def trained() -> str:
        rows: list[float] = []
        fitted = fit(variant, 5, digits[70:400], digits[:70], [lambda row: rows.append(row["train/loss"])])
        seen.append(rows)
        return fingerprint.tensors_sha256(fitted.weights)

    usual = trained()
    for name, value in CLUSTERS.items():
        monkeypatch.setenv(name, value)
    for name in inspect.signature(pl.Trainer).parameters:
        monkeypatch.setenv(f"PL_TRAINER_{name.upper()}", "3")
    monkeypatch.setenv("PL_TRAINER_LIMIT_TRAIN_BATCHES", "0.5")
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "1")
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert trained() == usual
    assert seen[0] == seen[1]
    assert len(seen[1]) == 2


@pytest.mark.parametrize("name", ["original-sigmoid", "original-tanh", "modern", "frontier-distorted"])
def test_a_training_is_what_a_plain_loop_computes(params: Params, digits: Digits, name: str) -> None:
    """Weights bit for bit, history and trace, against the recipe written out without Lightning and its chunks.

    Each epoch's distortions follow from (seed, epoch) alone.
    """
    variant, training, validation = small(params.variants[name]), digits[70:400], digits[:70]
    fitted = fit(variant, 5, training, validation)
    network = networks.build(variant.network).initialise(variant.initialisation, 5)
    criterion = objective.build(variant)
    rule = optimizer.build(variant.optimizer, network.parameters())
    for epoch in (1, 2):
        rate = variant.optimizer.lr * (1 if epoch == 1 else variant.schedule.final)
        for group in rule.param_groups:
            group["lr"] = rate
        x, y = to_inputs(training.images, variant.pixels), training.labels.long()
        order = shuffled(330, 5, epoch)
        if variant.distortion.kind == "affine":
            chance = torch.Generator().manual_seed(derive(5, "distortion", epoch))
            x[order] = distort(x[order], draw(330, variant.distortion, chance), variant.pixels)
        losses, wrong = [], 0
        for part in order.split(32):
            passes = networks.passes([network], len(part))
            passes.inputs[0] = x[part]
            (scores,) = passes.forward()
            loss = criterion.loss(scores, y[part])
            wrong += int((scores.argmax(1) != y[part]).sum())
            losses.append((loss.item(), len(part)))
            passes.backward(criterion.gradient(scores, y[part], len(part))[None])
            rule.step()
        row = fitted.history[epoch - 1]
        assert [size for _, size in losses] == [32] * 10 + [10]
        assert fitted.trace[epoch - 1].tolist() == [loss for loss, _ in losses]
        assert row["epoch"] == epoch
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-15)
        assert row["train/error"] == wrong / 330
        assert row["train/loss"] == pytest.approx(sum(loss * size for loss, size in losses) / 330, rel=1e-6)
        scores, answers = networks.outputs(network, validation.images, variant.pixels), validation.labels.long()
        assert row["validation/error"] == int((scores.argmax(1) != answers).sum()) / 70
        assert row["validation/loss"] == criterion.loss(scores, answers).item()
        assert row["weights.sha256"] == fingerprint.tensors_sha256(network.state_dict())
    assert fingerprint.tensors_sha256(fitted.weights) == row["weights.sha256"]


def test_a_training_is_what_the_documents_formulas_compute(variant: Variant, digits: Digits) -> None:
    """The first updates stay on the path of the formulas in double precision, tests/reference.py's."""
    training = digits[:160]
    short = variant.model_copy(update={"epochs": 1, "batch_size": 16, "train_size": 160, "validation_size": 0})
    fitted = fit(short, 5, training, digits[:0])
    network = LeNet5(variant.network).initialise(variant.initialisation, 5)
    held = {name: nn.Parameter(parameter.detach().double()) for name, parameter in network.named_parameters()}
    arrays = {name: parameter.detach().numpy() for name, parameter in held.items()}  # of the same memory
    formulas = reference.Network(variant.model_dump(mode="json"), arrays, np.zeros(0))
    section, rates = variant.optimizer, {"lr": variant.optimizer.lr, "weight_decay": variant.optimizer.weight_decay}
    rule = (
        torch.optim.SGD(held.values(), momentum=section.momentum, **rates)
        if section.kind == "sgd"
        else torch.optim.Adam(held.values(), betas=(section.beta1, section.beta2), **rates)
    )
    x, y = to_inputs(training.images, variant.pixels).double().numpy(), training.labels.long().numpy()
    losses = []
    for part in shuffled(160, 5, 1).split(16):
        losses.append(formulas.learn(x[part], y[part]))
        for name, parameter in held.items():
            parameter.grad = torch.from_numpy(formulas.gradients[name])
        rule.step()
    np.testing.assert_allclose(fitted.trace[0], losses, rtol=2e-3)
    np.testing.assert_allclose(fitted.trace[0][:3], losses[:3], rtol=5e-4)
    assert fitted.trace[0][0].item() == pytest.approx(losses[0], rel=2e-5)


def test_an_on_line_training_is_what_a_plain_loop_computes(params: Params, digits: Digits) -> None:
    """Constant order, curvatures anew before each pass from keyed digits, rates by the steps of the schedule."""
    block = params.variants["lecun1998"].model_dump(mode="json")
    block |= {"epochs": 2, "train_size": 60, "validation_size": 50}
    block["schedule"]["steps"] = [{"epochs": 1, "factor": 1.0}, {"epochs": 1, "factor": 0.4}]
    block["optimizer"]["patterns"] = 20
    variant = Variant.model_validate(block)
    training, validation = digits[50:110], digits[:50]
    fitted = fit(variant, 5, training, validation)
    network = LeNet5(variant.network).initialise(variant.initialisation, 5)
    rule, criterion = optimizer.build(variant.optimizer, network.parameters()), objective.build(variant)
    order = shuffled(60, 5, 0)
    inputs, labels = to_inputs(training.images[order], variant.pixels), training.labels[order].long()
    for epoch, factor in ((1, 1.0), (2, 0.4)):
        rule.param_groups[0]["lr"] = variant.optimizer.lr * factor
        chance = torch.Generator().manual_seed(derive(5, "curvature", epoch))
        some = torch.randperm(60, generator=chance)[:20]
        rule.set_curvatures(
            levenberg.curvatures(network, inputs[some], labels[some], variant.objective, variant.optimizer.criterion)
        )
        losses = []
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):
            network.zero_grad()
            loss = criterion.loss(network(x), y)
            loss.backward()
            rule.step()
            losses.append(loss.item())
        assert fitted.trace[epoch - 1].tolist() == losses
        assert fitted.history[epoch - 1]["learning_rate"] == variant.optimizer.lr * factor
    assert fingerprint.tensors_sha256(fitted.weights) == fingerprint.tensors_sha256(network.state_dict())
    assert sum(tensor.numel() for tensor in fitted.weights.values()) == 60_000


@pytest.mark.parametrize(("count", "size"), [(10, 10), (10, 3), (10, 5), (7, 64), (1, 1)])
def test_every_digit_is_seen_once_an_epoch_whatever_the_batch_size(params: Params, digits: Digits, count, size) -> None:
    variant = small(params.variants["modern"], train_size=count, batch_size=size, validation_size=0)
    fitted = fit(variant, 1, digits[:count], digits[:0])
    assert fitted.trace.shape == (2, -(-count // size))
    assert fitted.trace.all()
    assert fitted.history[0]["train/error"] * count == pytest.approx(round(fitted.history[0]["train/error"] * count))


@pytest.mark.parametrize("name", ["modern", "lecun1998", "frontier"])
def test_the_number_of_threads_changes_no_bit(params: Params, digits: Digits, name: str) -> None:
    size = {"lecun1998": 1, "frontier": 64}.get(name, 32)
    variant = small(params.variants[name], epochs=1, train_size=90, validation_size=0, batch_size=size)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):

            class More(pl.Callback):  # a training asks for one
                def on_train_start(self, *_: object, threads: int = threads) -> None:
                    torch.set_num_threads(threads)

            found.append(
                fingerprint.tensors_sha256(fit(variant, 1, digits[:90], digits[:0], callbacks=[More()]).weights)
            )
            assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["modern", "frontier-distorted"])
def test_seeds_differ_and_repeat(params: Params, digits: Digits, name: str) -> None:
    variant = small(params.variants[name], epochs=1)

    def weights(seed: int) -> str:
        return fingerprint.tensors_sha256(fit(variant, seed, digits[70:400], digits[:70]).weights)

    torch.manual_seed(3)
    first = weights(1)
    torch.rand(100)
    assert weights(1) == first != weights(2)


def test_every_variant_learns(params: Params, digits: Digits) -> None:
    for name in ("original-sigmoid", "original-tanh", "modern"):
        variant = params.variants[name].model_copy(update={"epochs": 3})
        last = fit(variant, 1, digits[500:1700], digits[:500]).history[-1]
        assert last["validation/error"] < 0.2, name


def test_no_validation_digits_means_no_validation_metric(params: Params, digits: Digits) -> None:
    fitted = fit(small(params.variants["modern"], validation_size=0), 1, digits[:330], digits[:0])
    assert not [name for name in fitted.history[0] if name.startswith("validation")]


def stage(params: Params, prepared: Path, out: Path, name: str = "modern", **options: object) -> Record:
    train(small_params(params), name, {1: out}, prepared / "train.safetensors", None, **{"experiment": None} | options)
    return Record.read(out / "run.json")


def test_the_stage_writes_four_files_that_agree(params: Params, prepared: Path, digits: Digits, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "modern-1"
    record = stage(params, prepared, out)
    assert sorted(p.name for p in out.iterdir()) == ["history.csv", "run.json", "trace", "weights.safetensors"]
    weights = load_file(out / "weights.safetensors")
    assert fingerprint.tensors_sha256(weights) == record.weights
    history = pd.read_csv(out / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["weights.sha256"].iloc[-1] == record.weights
    trace = np.fromfile(out / "trace", "<f4").reshape(2, 11)
    assert np.isfinite(trace).all()
    assert record.data == fingerprint.data_sha256(digits[70:400], digits[:70])
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    stage(params, prepared, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_a_training_repeats_in_a_process_of_its_own_whatever_its_surroundings(
    params: Params, prepared: Path, tmp_path: Path
) -> None:
    here = stage(params, prepared, tmp_path / "here")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    code = (
        "from lenet.params import loading; from lenet.pipeline.train import train\n"
        "from pathlib import Path; import torch, sys\n"
        "p = loading.load()\n"
        "small = {n: v.model_copy(update=dict(epochs=2, train_size=330, validation_size=70, batch_size=32))"
        " for n, v in p.variants.items()}\n"
        "train(p.model_copy(update={'variants': small}), 'modern', {1: Path('there')}, Path(sys.argv[1]), None, None)\n"
        "assert torch.get_num_threads() == 1"
    )
    run(
        sys.executable, "-c", code, str(prepared / "train.safetensors"), cwd=tmp_path,
        OMP_NUM_THREADS="2", MKL_NUM_THREADS="2", PYTHONHASHSEED="7",
    )  # fmt: skip
    assert Record.read(tmp_path / "there" / "run.json") == here


@pytest.mark.parametrize("how", ["on", "unreachable", "unusable", "dies midway"])
def test_tracking_changes_no_bit(params: Params, prepared: Path, tmp_path: Path, monkeypatch, capfd, how: str) -> None:
    silent = stage(params, prepared, tmp_path / "off")
    uri = {
        "unreachable": "http://127.0.0.1:9",  # discard: nothing listens
        "unusable": "sqlite:////proc/nowhere/mlflow.db",
    }.get(how, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if how == "on":
        monkeypatch.setattr(recorder, "PATIENCE", 300.0)  # on a busy machine the store answers late
    if how == "dies midway":

        def dead(*args: object, **kwargs: object) -> None:
            raise OSError("the disk is full")

        monkeypatch.setattr("mlflow.MlflowClient.log_batch", dead)
    capfd.readouterr()
    assert stage(params, prepared, tmp_path / how, experiment="lenet5") == silent
    error = capfd.readouterr().err
    warnings = [line for line in error.splitlines() if line.startswith("lenet: warning")]
    assert len(warnings) == (how != "on"), warnings
    assert error.count("the disk is full") == (how == "dies midway")


def test_the_progress_display_changes_no_bit(params: Params, prepared: Path, tmp_path, monkeypatch, capfd) -> None:
    shown = stage(params, prepared, tmp_path / "lines")
    out, error = capfd.readouterr()
    assert out == ""
    lines = error.splitlines()
    assert [line.split(":")[0] for line in lines] == ["modern-1", "modern-1"]
    assert "epoch 2/2" in lines[1]
    assert "validation error" in lines[1]
    assert "img/s" in lines[1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert stage(params, prepared, tmp_path / "bar") == shown
    assert "modern-1" in capfd.readouterr().err


def test_a_training_that_diverges_says_where_and_writes_nothing(params: Params, prepared: Path, tmp_path: Path) -> None:
    wild = small(params.variants["modern"])
    wild = wild.model_copy(update={"optimizer": wild.optimizer.model_copy(update={"lr": 1e30})})
    params = params.model_copy(update={"variants": {"modern": wild}})
    with pytest.raises(
        InputError, match=r"diverged: .*: a magnitude of \S+ at step \d+ of epoch 1; a smaller optimizer\.lr"
    ):
        train(params, "modern", {1: tmp_path / "out"}, prepared / "train.safetensors", None, None)
    assert not (tmp_path / "out").exists()


def test_an_unknown_variant_is_one_line(params: Params, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'future' has no block .* original-tanh"):
        stage(params, prepared, tmp_path / "out", name="future")


def test_one_thread_is_set_before_torch_loads() -> None:
    code = "import os, lenet, torch; print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    assert run(sys.executable, "-c", code, cwd=ROOT, OMP_NUM_THREADS="2").stdout.split() == ["1", "PASSIVE"]
    assert lenet.THREADS == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
