"""The readable module under anybody's Trainer: ordinary, with the pipeline's bits, or refused with the reason."""

import copy
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from conftest import ROOT, run
from lenet import tracking
from lenet.arithmetic import exact
from lenet.digits.data import Digits, to_inputs
from lenet.digits.datamodule import DigitsModule
from lenet.params.schema import Params, Pixels, Variant
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking import journal
from lenet.tracking.logger import RunLogger
from lenet.training.fingerprint import tensors_sha256
from lenet.training.fit import Fitted, fit
from lenet.training.module import LeNet

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice


def small(variant: Variant, **changes: object) -> Variant:
    """11 steps in an epoch, the last with 10 digits."""
    sizes = {"epochs": 3, "train_size": 330, "validation_size": 70, "batch_size": 32}
    return variant.model_copy(update=sizes | changes)


@pytest.fixture(scope="module")
def modern(params: Params) -> Variant:
    return small(params.variants["modern"])


@pytest.fixture(scope="module")
def fitted(modern: Variant, digits: Digits) -> Fitted:
    """What the pipeline makes of `modern`, seed 1."""
    return fit(modern, 1, *digits.split(modern))


@pytest.fixture
def data(modern: Variant, digits: Digits) -> DigitsModule:
    return DigitsModule(modern, 1, digits, test=digits[-300:])


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """A Trainer with Lightning's defaults, but for what would be shown or written elsewhere."""

    def make(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
        return pl.Trainer(**quiet | {"max_epochs": 3, "logger": False, "callbacks": list(callbacks)} | options)

    return make


def digest(module: LeNet) -> str:
    return tensors_sha256(module.network.state_dict())


class Look(pl.Callback):
    """What a user's callback sees at an epoch's end, and torch's threads meanwhile."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.steps: list[int] = []
        self.threads: set[int] = set()

    def on_train_batch_end(self, *_: Any) -> None:
        self.threads.add(torch.get_num_threads())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.steps.append(trainer.global_step)


def test_a_plain_trainer_ends_with_the_pipeline_s_weights_and_callbacks_see_its_numbers(
    modern, fitted, data, trainer
) -> None:
    """Every epoch has an order of its own, though no loader is made anew."""
    module, look = LeNet(modern, 1), Look()
    trainer(look).fit(module, data)
    assert digest(module) == fitted.history[-1]["weights.sha256"]
    assert look.steps == [11, 22, 33]
    for seen, row in zip(look.seen, fitted.history, strict=True):
        assert seen.keys() == {"train/loss", "train/error", "validation/loss", "validation/error"}
        for name, value in seen.items():
            assert value == pytest.approx(row[name], rel=1e-6), name


def test_fewer_epochs_are_a_prefix(modern, fitted, data, trainer) -> None:
    module = LeNet(modern, 1)
    trainer(max_epochs=2).fit(module, data)
    assert digest(module) == fitted.history[1]["weights.sha256"]


def test_the_readme_s_script_runs_and_mlflow_has_each_number_at_its_step(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, in a folder with params.yaml and data/."""
    (script,) = {
        re.search(r"```python\n(from pathlib.*?)```", (ROOT / page).read_text(), re.S)[1]
        for page in ("README.md", "docs/how-to/use-the-module.md")
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.safetensors").symlink_to(prepared / "train.safetensors")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(script, names)
    module, logger = names["module"], names["logger"]
    rows = fit(module.variant, module.seed, names["data"].train_set, names["data"].validation_set).history
    assert digest(module) == rows[-1]["weights.sha256"]
    client: MlflowClient = logger.experiment
    steps = -(-module.variant.train_size // module.variant.batch_size)
    last_steps = [steps * epoch - 1 for epoch in range(1, len(rows) + 1)]  # of each epoch, from 0
    for name in ("train/loss", "train/error", "validation/loss", "validation/error"):
        logged = client.get_metric_history(logger.run_id, name)
        assert [point.step for point in logged] == last_steps
        assert [point.value for point in logged] == pytest.approx([row[name] for row in rows], rel=1e-5)
    epochs = {(point.step, point.value) for point in client.get_metric_history(logger.run_id, "epoch")}
    assert epochs == set(zip(last_steps, range(len(rows)), strict=True))
    run_ = client.get_run(logger.run_id)
    assert run_.info.status == "FINISHED"
    assert run_.data.params["variant/optimizer/lr"] == str(module.variant.optimizer.lr)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mine.db", "params.yaml"]


def test_our_own_logger_notes_each_number_at_its_epoch_and_no_fault_of_mlflow_stops_the_trainer(
    modern, fitted, data, trainer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # discard: nothing listens
    record = Record("mine", 1, modern, "0" * 64, "1" * 64, "2" * 64)
    with tracking.training(record, "lenet5-mine") as own:
        logger = RunLogger(own)
        module = LeNet(modern, 1)
        trainer(logger=logger).fit(module, data)
    assert digest(module) == fitted.history[-1]["weights.sha256"]
    assert (logger.name, logger.version) == ("lenet5-mine", "mine-1")
    assert capfd.readouterr().err.count("lenet: warning: mine-1 goes on without its MLflow record") == 1
    entry = journal.of(record)
    assert entry
    assert entry.status == "FINISHED"
    noted = {(name, point.step): value for point in entry.points for name, value in point.metrics.items()}
    for row in fitted.history:
        for name in ("train/loss", "train/error", "validation/loss", "validation/error"):
            assert noted.pop((name, row["epoch"])) == pytest.approx(row[name], rel=1e-6)
        assert 0 < noted.pop(("epoch_seconds", row["epoch"])) < 60
    assert not noted


def test_model_checkpoint_and_early_stopping_see_the_error_on_digits_held_out(modern, data, trainer, tmp_path) -> None:
    best = ModelCheckpoint(tmp_path / "best", monitor="validation/error", filename="best")
    ends = trainer(best, EarlyStopping("validation/error", patience=1, stopping_threshold=0.5))
    ends.fit(LeNet(modern, 1), data)
    assert best.best_model_path == str(tmp_path / "best" / "best.ckpt")
    assert float(best.best_model_score) < 0.5
    assert ends.current_epoch == 2  # 0.69, then 0.3


@pytest.mark.parametrize("name", ["original-sigmoid", "lecun1998-distorted", "frontier-distorted"])
def test_a_training_goes_on_from_lightning_s_checkpoints_to_the_same_bits(
    name: str, params: Params, digits: Digits, trainer, tmp_path: Path
) -> None:
    """The pipeline's. From an epoch's end, before and after its validation has been noted, and from within an epoch."""
    variant = small(params.variants[name], train_size=80, validation_size=20)
    data = DigitsModule(variant, 1, digits)
    kinds = {
        "validated": {"monitor": "validation/error"},
        "ended": {"save_on_train_epoch_end": True},
        "within": {"every_n_train_steps": 2},
    }
    saving = [ModelCheckpoint(tmp_path / kind, save_top_k=-1, **options) for kind, options in kinds.items()]
    whole = LeNet(variant, 1)
    trainer(*saving).fit(whole, data)
    assert digest(whole) == fit(variant, 1, *digits.split(variant)).history[-1]["weights.sha256"]
    paths = {kind: sorted((tmp_path / kind).glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns) for kind in kinds}
    assert [len(found) for found in paths.values()] == [3, 3, 4]
    for path in (paths["validated"][0], paths["ended"][0], paths["ended"][1], paths["within"][1]):
        module = LeNet(variant, 1)
        goes_on = trainer()
        goes_on.fit(module, DigitsModule(variant, 1, digits), ckpt_path=str(path))
        assert (digest(module), goes_on.global_step) == (digest(whole), 9), path


def test_a_module_is_copied_pickled_and_loaded_from_a_checkpoint(modern, data, trainer, tmp_path: Path) -> None:
    """The checkpoint holds plain values: it loads where nothing may be executed."""
    module, path = LeNet(modern, 1), tmp_path / "end.ckpt"
    ends = trainer(max_epochs=1)
    ends.fit(module, data)
    ends.save_checkpoint(path)
    for other in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        LeNet.load_from_checkpoint(path),
        LeNet.load_from_checkpoint(path, weights_only=True),
    ):
        assert digest(other) == digest(module)
        assert (other.variant, other.seed) == (modern, 1)
        assert trainer().validate(other, data, verbose=False) == trainer().validate(module, data, verbose=False)


def test_validate_test_and_predict(modern, fitted, data, digits: Digits, trainer) -> None:
    module = LeNet(modern, 1)
    module.network.load_state_dict(fitted.weights)
    (validated,) = trainer().validate(module, data, verbose=False)
    row = fitted.history[-1]
    assert validated == pytest.approx({name: row[name] for name in ("validation/loss", "validation/error")}, rel=1e-6)
    (tested,) = trainer().test(module, data, verbose=False)
    answers = trainer().predict(module, data)
    assert [len(part["digit"]) for part in answers] == [200, 100]
    digit, scores = (torch.cat([part[name] for part in answers]) for name in ("digit", "scores"))
    assert torch.equal(scores.argmax(1), digit)
    assert scores.sum(1).tolist() == pytest.approx([1] * 300, abs=1e-5)
    assert tested["test/error"] == pytest.approx(float((digit != digits[-300:].labels).float().mean()))


def test_without_test_digits_test_and_predict_say_so(modern, digits: Digits, trainer) -> None:
    for job in (trainer().test, trainer().predict):
        with pytest.raises(InputError, match=r"no test digits .* legal: test="):
            job(LeNet(modern, 1), DigitsModule(modern, 1, digits))


def test_one_thread_works_and_torch_s_own_are_there_again_after_an_end_of_any_kind(modern, data, trainer) -> None:
    class Fails(Look):
        def on_train_epoch_end(self, *_: Any) -> None:
            raise OSError("the disk is full")

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        look, fails = Look(), Fails()
        trainer(look, max_epochs=1).fit(LeNet(modern, 1), data)
        assert (look.threads, torch.get_num_threads()) == ({1}, 2)
        with pytest.raises(OSError, match="the disk is full"):
            trainer(fails).fit(LeNet(modern, 1), data)
        assert (fails.threads, torch.get_num_threads()) == ({1}, 2)
        with pytest.raises(InputError):
            trainer(max_epochs=4).fit(LeNet(modern, 1), data)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_epochs": 4}, r"max_epochs = 4: .* for 3 epochs; legal: max_epochs = 0 … 3"),
        ({"max_epochs": 1000}, "max_epochs = 1000: "),
        ({"max_epochs": -1}, "max_epochs = -1: "),
        ({"max_epochs": None}, "max_epochs = 1000: "),  # Lightning's default
        ({"max_epochs": None, "max_steps": 5}, "max_epochs = -1: "),
        ({"precision": "bf16-mixed"}, r"precision = 'bf16-mixed': .* legal: '32-true'"),
        ({"precision": "64-true"}, "precision = '64-true': "),
        ({"overfit_batches": 2}, "overfit_batches = 2: .* legal: a smaller train_size"),
    ],
)
def test_what_cannot_be_right_is_refused_before_the_first_step(modern, data, trainer, options, said) -> None:
    module = LeNet(modern, 1)
    with pytest.raises(InputError, match=said):
        trainer(**options).fit(module, data)
    assert digest(module) == digest(LeNet(modern, 1))
    assert next(module.parameters()).dtype == torch.float32


def test_another_precision_and_other_pixels_are_refused_in_use_too(modern, digits, data, trainer):
    with pytest.raises(InputError, match="precision = '16-true'"):
        trainer(precision="16-true", accelerator="cpu").validate(LeNet(modern, 1), data)
    other = modern.model_copy(update={"pixels": Pixels(background=0.0, ink=1.0)})
    with pytest.raises(InputError, match=r"DigitsModule has pixels = .* legal: the same"):
        trainer().validate(LeNet(modern, 1), DigitsModule(other, 1, digits))


@pytest.mark.slow  # two more processes import Lightning
def test_several_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import pytorch_lightning as pl\n"
        "from pathlib import Path\n"
        "from lenet import LeNet\n"
        "from lenet.params import loading\n"
        "if __name__ == '__main__':\n"
        f"    block = loading.load(Path('{ROOT}/params.yaml')).variants['modern']\n"
        "    pl.Trainer(devices=2, accelerator='cpu', strategy='ddp_spawn', max_epochs=1).fit(LeNet(block, 1), [])\n"
    )
    done = run(sys.executable, "own.py", cwd=tmp_path, status=1, PYTHONPATH=str(ROOT / "src"))
    assert "InputError: devices = 2: a training is one process's; legal: devices=1" in done.stderr


@pytest.mark.parametrize("name", ["modern", "original-sigmoid", "frontier", "lecun1998"])
def test_a_user_s_own_loaders_serve_every_optimizer_but_the_one_that_estimates_curvatures(
    name: str, params: Params, digits: Digits, trainer
) -> None:
    variant = small(params.variants[name])
    some = TensorDataset(to_inputs(digits[:64].images, variant.pixels), digits[:64].labels.long())
    module, look, start = LeNet(variant, 1), Look(), digest(LeNet(variant, 1))
    ends = trainer(look, max_epochs=1)
    if name == "lecun1998":
        with pytest.raises(
            InputError, match=r"estimates curvatures .* legal: trainer.fit\(module, DigitsModule\(…\)\)"
        ):
            ends.fit(module, DataLoader(some, batch_size=16))
        assert digest(module) == start
        return
    ends.fit(module, DataLoader(some, batch_size=16, shuffle=True), DataLoader(some, batch_size=50))
    assert look.seen[0].keys() == {"train/loss", "train/error", "validation/loss", "validation/error"}
    assert digest(module) != start
    (tested,) = trainer().test(module, DataLoader(some, batch_size=7), verbose=False)
    digit = torch.cat([part["digit"] for part in trainer().predict(module, DataLoader(some[:][0], batch_size=9))])
    assert tested["test/error"] == pytest.approx(float((digit != some[:][1]).float().mean()))


def test_fewer_batches_are_the_first_of_each_epoch(modern, data, digits: Digits, trainer) -> None:
    module, epochs = LeNet(modern, 1), list[list[Tensor]]()

    class Watch(pl.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            epochs.append([])

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
            epochs[-1].append(batch[1])

    ends = trainer(Watch(), limit_train_batches=2)
    ends.fit(module, data)
    assert ends.global_step == 6
    for epoch, labels in enumerate(epochs):
        assert torch.equal(torch.cat(labels), data.present(epoch).labels(slice(0, 64)))


def test_accumulated_batches_step_along_the_mean_of_their_gradients(params: Params, digits: Digits, trainer) -> None:
    """Two batches of 16 take, but for rounding, the step of one of 32."""
    sgd = {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    block = small(params.variants["modern"], train_size=32).model_dump(mode="json") | {"optimizer": sgd}
    start, wide, narrow = (LeNet(block | {"batch_size": size}, 1) for size in (32, 32, 16))
    trainer(max_epochs=1).fit(wide, DigitsModule(wide.variant, 1, digits))
    ends = trainer(max_epochs=1, accumulate_grad_batches=2)
    ends.fit(narrow, DigitsModule(narrow.variant, 1, digits))
    assert ends.global_step == 1
    for before, one, other in zip(start.parameters(), wide.parameters(), narrow.parameters(), strict=True):
        step = one - before
        assert float((one - other).abs().max()) < 1e-5 * float(step.abs().max())


def test_clipped_gradients_bound_a_step(params: Params, digits: Digits, trainer) -> None:
    sgd = {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    module = LeNet(small(params.variants["modern"]).model_dump(mode="json") | {"optimizer": sgd}, 1)
    before = copy.deepcopy(module)
    trainer(max_epochs=1, limit_train_batches=1, gradient_clip_val=1e-3).fit(
        module, DigitsModule(module.variant, 1, digits)
    )
    moved = torch.cat([(a - b).flatten() for a, b in zip(module.parameters(), before.parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_training_that_diverges_says_where(modern, digits: Digits, trainer) -> None:
    wild = modern.model_copy(update={"optimizer": modern.optimizer.model_copy(update={"lr": 1e30})})
    with pytest.raises(InputError, match=r"diverged: .* at step 2 of epoch 1; a smaller optimizer.lr"):
        trainer().fit(LeNet(wild, 1), DigitsModule(wild, 1, digits))


class Bursting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise exact.NotFinite("C3's gradient: inf")


def test_a_gradient_that_bursts_says_where(modern, data, trainer) -> None:
    class Own(LeNet):
        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = super().training_step(batch, index)
            return Bursting.apply(loss) if index == 4 else loss

    with pytest.raises(InputError, match=r"diverged: C3's gradient: inf at step 5 of epoch 1"):
        trainer().fit(Own(modern, 1), data)
