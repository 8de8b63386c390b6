"""Checkpoints: a training that goes on from one ends with the bits of one that was never stopped."""

import pickle
from pathlib import Path

import pytest
import torch

from conftest import Stop, Stopping
from lenet.digits.data import Digits, load_digits
from lenet.params.schema import Params, Variant
from lenet.pipeline import train
from lenet.reproduce import clean
from lenet.training import checkpoint, fast_module, fingerprint
from lenet.training.checkpoint import Checkpoints
from lenet.training.fit import Fitted, fit

pytestmark = pytest.mark.usefixtures("unsigned")


@pytest.fixture(autouse=True)
def _at_every_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(fast_module, "DIGITS", 128)


def small(variant: Variant) -> Variant:
    """Three epochs of three chunks, the last update smaller than the others."""
    return variant.model_copy(update={"epochs": 3, "train_size": 260, "validation_size": 40, "batch_size": 16})


def trained(variant: Variant, digits: Digits, *callbacks: Checkpoints) -> Fitted:
    start = callbacks[0].latest() if callbacks else None
    return fit(variant, 4, digits[40:300], digits[:40], callbacks=callbacks, start=start)


def stopped(variant: Variant, digits: Digits, folder: Path, saves: int) -> Checkpoints:
    """The checkpoints of a training that was stopped after so many saves."""
    with pytest.raises(Stop):
        trained(variant, digits, Stopping(folder, "small", saves))
    return Checkpoints(folder, "small")


def same(one: Fitted, other: Fitted) -> bool:
    return (
        all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
        and one.history == other.history
        and torch.equal(one.trace, other.trace)
    )


@pytest.mark.parametrize(
    "name", ["original-sigmoid", "original-tanh", "modern", "tutorial-average", "frontier-distorted"]
)
def test_it_goes_on_bit_for_bit_however_often_it_was_stopped(
    params: Params, digits: Digits, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = small(params.variants[name])
    states = [stopped(variant, digits, tmp_path, saves).latest() for saves in (1, 3, 2, 4, 2)]
    assert [(state.epoch, state.step) for state in states if state] == [(0, 0), (0, 16), (1, 0), (2, 0), (2, 8)]
    assert same(trained(variant, digits, Checkpoints(tmp_path, "small")), trained(variant, digits))
    assert "small goes on after epoch 2, step 8" in capsys.readouterr().err


def online(params: Params, distortion: dict) -> Variant:
    """Three epochs of the paper's recipe on 60 digits."""
    block = params.variants["lecun1998"].model_dump(mode="json")
    block["optimizer"]["patterns"] = 20
    return Variant.model_validate(block | {"epochs": 3, "train_size": 60, "distortion": distortion})


PAPER = {"kind": "paper", "shrink": [0.77, 1.4], "squeeze": 0.1, "shear": 0.14, "translation": 2.0}


@pytest.mark.parametrize("distortion", [{"kind": "none"}, PAPER | {"copies": 2}, PAPER | {"copies": 0}])
def test_an_on_line_training_goes_on_bit_for_bit_snapshots_included(
    params: Params, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distortion: dict
) -> None:
    """How many digits are presented at a time changes nothing, either."""
    variant = online(params, distortion)

    def done(*callbacks: Checkpoints) -> Fitted:
        start = callbacks[0].latest(with_snapshots=True) if callbacks else None
        return fit(variant, 4, digits[:60], digits[:0], callbacks=callbacks, start=start, snapshots=True)

    whole = done()
    monkeypatch.setattr(fast_module, "DIGITS", 25)
    for saves in (2, 2, 3):
        with pytest.raises(Stop):
            done(Stopping(tmp_path, "small", saves))
    state = Checkpoints(tmp_path, "small").latest()
    assert state is not None
    assert (state.epoch, state.step) == (1, 25)
    parts = done(Checkpoints(tmp_path, "small"))
    assert same(parts, whole)
    assert fingerprint.tensors_sha256(parts.snapshots) == fingerprint.tensors_sha256(whole.snapshots)
    for number, row in enumerate(whole.history):
        its = {name: kept[number] for name, kept in whole.snapshots.items()}
        assert fingerprint.tensors_sha256(its) == row["weights.sha256"]


def test_snapshots_cannot_go_on_from_a_checkpoint_without(
    params: Params, digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = online(params, {"kind": "none"})
    with pytest.raises(Stop):
        fit(variant, 4, digits[:60], digits[:0], callbacks=[Stopping(tmp_path, "small", saves=2)])
    assert Checkpoints(tmp_path, "small").latest() is not None
    assert Checkpoints(tmp_path, "small").latest(with_snapshots=True) is None
    assert "it has no snapshots" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    params: Params, digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = small(params.variants["modern"])
    stopped(variant, digits, tmp_path, 4)
    older, last = sorted(tmp_path.glob("*.safetensors"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    state = Checkpoints(tmp_path, "small").latest()
    assert state is not None
    assert older.name.startswith(f"{state.epoch:06}-{state.step:08}-")
    assert f"{last} is damaged" in capsys.readouterr().err
    assert same(trained(variant, digits, Checkpoints(tmp_path, "small")), trained(variant, digits))


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_with_all_damaged_it_begins_again(params: Params, digits: Digits, tmp_path: Path, damage: bytes) -> None:
    variant = small(params.variants["modern"])
    stopped(variant, digits, tmp_path, 4)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(damage)
    assert Checkpoints(tmp_path, "small").latest() is None
    assert same(trained(variant, digits, Checkpoints(tmp_path, "small")), trained(variant, digits))


def test_loading_unpickles_nothing(
    params: Params, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = small(params.variants["modern"])
    kept = stopped(variant, digits, tmp_path, 2)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("pickle is in use")

    for owner, name in ((pickle, "Unpickler"), (pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert kept.latest() is not None


def test_two_are_kept_and_none_after_the_end(params: Params, digits: Digits, tmp_path: Path) -> None:
    variant = small(params.variants["modern"])
    kept = stopped(variant, digits, tmp_path, 7)
    assert len(list(tmp_path.glob("*"))) == checkpoint.KEPT
    kept.remove()
    assert not tmp_path.exists()


def test_a_full_disk_is_said_once_and_the_training_goes_on(
    params: Params, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    variant = small(params.variants["modern"])
    assert same(trained(variant, digits, Checkpoints(tmp_path, "small")), trained(variant, digits))
    assert capsys.readouterr().err.count("no checkpoint can be saved ([Errno 28] No space left on device)") == 1


def test_another_key_has_no_checkpoint_and_the_same_key_elsewhere_leaves_it_alone() -> None:
    with checkpoint.kept("modern-1", "a" * 64) as first:
        with checkpoint.kept("modern-1", "b" * 64) as second:
            assert first.folder != second.folder
        with checkpoint.kept("modern-1", "a" * 64) as twin:
            assert twin.folder is None
            assert twin.latest() is None
            twin.remove()
        assert first.folder is not None
        assert first.folder.exists()
        for each in (first, second):
            each.remove()


def test_the_stage_removes_its_checkpoints_when_it_is_complete(
    params: Params, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    save = Checkpoints.save

    def noted(self: Checkpoints, state: checkpoint.State) -> None:
        save(self, state)
        assert self.folder is not None
        saved.append(self.folder)

    monkeypatch.setattr(Checkpoints, "save", noted)
    one = params.model_copy(update={"variants": {"modern": small(params.variants["modern"])}})
    train.train(one, "modern", {4: tmp_path / "modern-4"}, prepared / "train.safetensors", None, experiment=None)
    assert len(saved) >= 3
    assert not saved[0].exists()


def test_clean_keeps_what_a_training_would_go_on_from_and_removes_the_rest(
    params: Params, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "home", lambda: tmp_path / "checkpoints")
    data = prepared / "train.safetensors"
    key = clean._key(params, "modern-7", load_digits(data))
    kept, changed, unknown = (checkpoint.home() / name for name in (f"modern-7-{key}", "modern-7-0a", "none-1-0b"))
    for folder in (kept, changed, unknown):
        folder.mkdir(parents=True)
    assert [path for path, _ in clean.clean(params, tmp_path / "absent", dry_run=False)] == []
    assert [path for path, _ in clean.clean(params, data, dry_run=True)] == [changed, unknown]
    assert changed.exists()
    with checkpoint.kept("none-1", "0b"):  # a training under way
        assert [path for path, _ in clean.clean(params, data, dry_run=False)] == [changed]
    assert [path for path, _ in clean.clean(params, data, dry_run=False)] == [unknown]
    assert list(checkpoint.home().glob("*")) == [kept]
    kept.joinpath(".lock").unlink()
    kept.rmdir()
