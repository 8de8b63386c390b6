"""Signatures: what changes a training's bits changes them, and nothing else does; and what is done with them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conftest import ENVIRONMENT, ROOT, lenet_command, run
from lenet.digits.data import Digits
from lenet.params.schema import Params, Variant
from lenet.pipeline import signing, train
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking import journal
from lenet.training import fingerprint, signature

SOURCES = ROOT / "src" / "lenet"
SMALL = {"train_size": 2100, "validation_size": 300}


def small(variant: Variant, **changes: Any) -> Variant:
    """The block with few digits."""
    return signature.changed(variant, **SMALL | changes)


# what a miniature has of its block


def test_a_miniature_keeps_the_batch_the_last_batch_and_every_piece_of_the_schedule(params: Params) -> None:
    for name, variant in params.variants.items():
        found = signature.miniature(variant)
        assert found.batch_size == variant.batch_size
        assert found.train_size % found.batch_size == variant.train_size % variant.batch_size, name
        assert found.train_size <= min(variant.train_size, 500)
        assert bool(found.validation_size) == bool(variant.validation_size)
        assert found.epochs == 3 or "lecun" in name
    recipe, distorted = (signature.miniature(params.variants[f"lecun1998{what}"]) for what in ("", "-distorted"))
    assert [(step.epochs, step.factor) for step in recipe.schedule.steps] == [(1, f) for f in (1, 0.4, 0.2, 0.1, 0.02)]
    assert sum(step.epochs for step in distorted.schedule.steps) == distorted.epochs == 11  # ten kinds, and again
    assert [step.factor for step in distorted.schedule.steps] == [1, 0.4, 0.2, 0.1, 0.02]


def test_a_short_schedule_keeps_the_pieces_that_are_reached(params: Params) -> None:
    found = signature.miniature(small(params.variants["lecun1998"], epochs=4, validation_size=0))
    assert [(step.epochs, step.factor) for step in found.schedule.steps] == [(2, 1.0), (1, 0.4)]


@pytest.fixture(scope="module")
def one(params: Params, digits: Digits) -> dict[str, Any]:
    """The signature of a small `modern`."""
    return signature.sign(small(params.variants["modern"]), digits)


def test_it_is_the_same_twice_and_of_this_block_and_these_digits(
    params: Params, digits: Digits, one: dict[str, Any]
) -> None:
    variant = small(params.variants["modern"])
    assert signature.sign(variant, digits) == one
    assert one["block"] == fingerprint.block_sha256(variant)
    assert {"history.csv", "run.json", "snapshots.safetensors", "trace", "weights.safetensors"} == set(
        one["digests"]["files"]
    )
    assert re.fullmatch("[0-9a-f]{64}", fingerprint.json_sha256(one))
    other = signature.sign(small(params.variants["modern"], epochs=13), digits)
    assert other["digests"]["rates"] != one["digests"]["rates"]  # of every epoch, not of the miniature's alone


def test_it_sees_the_last_digits_of_the_order_and_of_the_data(
    params: Params, digits: Digits, one: dict[str, Any]
) -> None:
    variant = small(params.variants["modern"])
    labels, index = digits.labels.clone(), digits.index.clone()
    index[2399] += 1
    assert (
        signature.sign(variant, Digits(digits.images, labels, index))["digests"]["presented"]
        != one["digests"]["presented"]
    )
    labels[-1] ^= 1
    changed = Digits(digits.images, labels, digits.index)
    assert signature.digits_sha256(changed) != signature.digits_sha256(digits)


def test_a_block_that_diverges_is_signed_all_the_same(params: Params, digits: Digits) -> None:
    variant = params.variants["modern"]
    block = small(variant, optimizer=variant.optimizer.model_dump() | {"lr": 1e30})
    assert signature.sign(block, digits)["digests"]["files"].keys() == {"none"}


def test_no_part_of_a_published_signature_is_a_digest_of_nothing() -> None:
    """As a part is where its training is too small to be stopped in mid-epoch."""
    for path in (ROOT / "signatures").glob("*.json"):
        assert fingerprint.sha256_of() not in path.read_text(), path.name


# edits of the sources

BLOCKS: dict[str, Callable[[dict[str, Variant]], Variant]] = {
    "modern": lambda of: small(of["modern"], train_size=344, validation_size=60),
    "original": lambda of: small(of["original-tanh"], train_size=164, validation_size=60),
    "recipe": lambda of: small(of["lecun1998-held-out"], train_size=160, validation_size=60),
    "distorted": lambda of: small(of["lecun1998-distorted"], train_size=160, validation_size=0),
    "frontier": lambda of: small(of["frontier-distorted"], train_size=138, validation_size=0),
}
"""One of each kind of network, optimizer, schedule and distortion, small enough for a second."""

Edit = tuple[str, str, str, str]
EDITS: list[Edit] = [  # file, what stands there, what is put there, and the block that must show it
    ("arithmetic/exact.py", "INPUT_BITS = 20", "INPUT_BITS = 19", "original"),
    ("arithmetic/exact.py", "GRID_BITS = 22", "GRID_BITS = 21", "recipe"),
    ("arithmetic/exact.py", "clamp(min=least)", "clamp(min=least + 1)", "modern"),
    ("arithmetic/functions.py", "6.9314718e-1", "6.9314730e-1", "original"),
    ("arithmetic/functions.py", "1.5453163e-4", "1.5453263e-3", "modern"),
    ("arithmetic/nn.py", "UNBOUNDED = 3", "UNBOUNDED = 2", "modern"),
    ("arithmetic/nn.py", "(count / (count - 1))", "1.0", "frontier"),
    ("arithmetic/nn.py", "torch.maximum(x[:, :, 0::2]", "torch.minimum(x[:, :, 0::2]", "frontier"),
    ("arithmetic/randomness.py", '":".join', '"-".join', "modern"),
    ("arithmetic/randomness.py", "* 2.0 - 1.0", "* 2.0 - 0.99", "modern"),
    ("arithmetic/scalars.py", '"3.14159', '"3.14158', "modern"),
    ("arithmetic/scalars.py", "if exponent & 1:", "if exponent & 3:", "modern"),
    ("arithmetic/warps.py", "(side - 1) / 2", "side / 2", "distorted"),
    ("arithmetic/warps.py", "between(top) * (1.0 - lower_share)", "between(top) * lower_share", "frontier"),
    ("digits/data.py", "pixels.background) / 255", "pixels.background) / 256", "modern"),
    ("digits/data.py", 'derive(seed, "order", epoch)', 'derive(seed, "order", epoch + 1)', "modern"),
    ("digits/data.py", "self[held_out : held_out + variant.train_size]", "self[: variant.train_size]", "modern"),
    ("digits/datamodule.py", "self.digits.present(self.epoch)", "self.digits.present(0)", "modern"),
    ("digits/distortion.py", "cos * slope - sin", "cos * slope + sin", "frontier"),
    ("digits/distortion.py", "18.5 - 15.5", "18.5 - 15.0", "distorted"),
    ("digits/epochs.py", "(epoch - 1) % kinds", "epoch % kinds", "distorted"),
    ("digits/epochs.py", 'if variant.order == "constant" else', "if not variant.order else", "recipe"),
    ("digits/epochs.py", '"distortion", number', '"distortion", number + 1', "frontier"),
    ("runtime/files.py", "indent=2", "indent=1", "modern"),
    ("kernels/layers.py", "summed += on_grid", "summed = on_grid", "original"),
    ("kernels/steps.py", "(ONE - value[p] * value[p])", "(ONE + value[p] * value[p])", "original"),
    ("networks/__init__.py", "gradient.copy_(part)", "gradient.copy_(part).mul_(0.5)", "frontier"),
    ("networks/codes.py", "#", ".", "recipe"),
    ("networks/convnet.py", "torch.relu(super().forward(x))", "super().forward(x)", "frontier"),
    ("networks/fast.py", 'getattr(pooling, "share", 0.25)', 'getattr(pooling, "share", 0.5)', "modern"),
    ("networks/lenet5.py", "(0, 1, 2), (1, 2, 3)", "(0, 1, 3), (1, 2, 3)", "original"),
    ("networks/lenet5.py", "2 / 3, 1.7159", "2 / 3, 1.7158", "original"),
    ("training/checkpoint.py", '"step": state.step', '"step": 0', "original"),
    ("training/checkpoint.py", '"wrong": state.wrong', '"wrong": 0', "original"),
    ("training/fast_module.py", "training.wrong += int(", "training.wrong -= int(", "modern"),
    ("training/fast_module.py", "sizes[-1] = count - sizes[:-1].sum()", "sizes[-1] = 1", "modern"),
    ("training/fit.py", '"<f4"', '">f4"', "modern"),
    ("training/fit.py", 'lineterminator="\\n"', 'lineterminator="\\r\\n"', "modern"),
    ("training/levenberg.py", "(self.slope * self.slope) *", "self.slope *", "recipe"),
    ("training/module.py", "variant.initialisation, seed)", "variant.initialisation, seed + 1)", "modern"),
    ("training/objective.py", "(2 / count)", "(1 / count)", "original"),
    ("training/objective.py", "(1, 1), -1.0", "(1, 1), -0.5", "modern"),
    ("training/objective.py", "value=-section.j", "value=section.j", "recipe"),
    ("training/optimizer.py", "(epoch - 1) / (epochs - 1)", "epoch / epochs", "modern"),
    ("training/optimizer.py", "factors[epoch - 1]", "factors[0]", "recipe"),
    ("training/optimizer.py", "(section.beta1, section.beta2)", "(section.beta1, 0.5)", "modern"),
    ("training/optimizer.py", "2.0**-100, out=x", "2.0**-80, out=x", "modern"),
    ("runs/record.py", '"run": self.fingerprints,', '"runs": self.fingerprints,', "modern"),
]  # fmt: skip
BROKEN = (
    "this machine's arithmetic is off",
    "goes on from a checkpoint",
    "computes another network than the plain modules",
    "the readable network is trained to other weights",
)
"""What signing says in place of a signature, where two ways of computing the same no longer agree."""
UNSEEN = {
    "arithmetic/__init__.py": "a docstring",
    "kernels/__init__.py": "a docstring",
    "kernels/compiling.py": "what may change no bit",
    "params/schema.py": "types alone",
    "training/fingerprint.py": "digests, which are what is compared",
    "arithmetic/conformance.py": "a check",
    "training/signature.py": "the signature itself",
}
"""Numeric modules without an edit, and why."""


FORMS = ("runtime/files.py", "training/checkpoint.py", "training/fit.py", "runs/record.py")
"""What says how files are written, and not what weights become."""


class Signer:
    """A process that signs by other sources."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, str(ROOT / "tests" / "signer.py"), str(data)]
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, sources: Path, blocks: dict[str, Variant], what: str = "sign") -> dict[str, Any]:
        given = {name: block.model_dump(mode="json") for name, block in blocks.items()}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"sources": str(sources), "blocks": given, "what": what}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def signer(prepared: Path) -> Iterator[Signer]:
    found = Signer(prepared / "train.safetensors")
    yield found
    found.process.communicate()  # its input ends, and so does it


@pytest.fixture(scope="module")
def blocks(params: Params) -> dict[str, Variant]:
    return {name: make(dict(params.variants)) for name, make in BLOCKS.items()}


@pytest.fixture(scope="module")
def signatures(signer: Signer, blocks: dict[str, Variant]) -> Callable[[str], dict[str, Any]]:
    """That of a block by these sources, made once."""

    @cache
    def of(name: str) -> dict[str, Any]:
        found = signer(SOURCES.parent, {name: blocks[name]})[name]
        assert isinstance(found, dict), found
        return found

    return of


def edited(folder: Path, edits: dict[str, Callable[[str], str]]) -> Path:
    """A copy of the sources with some files changed."""
    shutil.copytree(SOURCES, folder / "lenet")  # with what is compiled
    for name, edit in edits.items():
        path = folder / "lenet" / name
        path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


def numeric() -> list[str]:
    """The numeric modules, by their paths."""
    paths = [path for name in fingerprint.NUMERIC for path in [SOURCES / name, *(SOURCES / name).rglob("*.py")]]
    return sorted(path.relative_to(SOURCES).as_posix() for path in paths if path.is_file())


def seldom(edits: list[Edit], often: set[str]) -> list[Any]:
    """As parameters; slow, but for the first edit of each of these files."""
    first = {file: edit for edit in reversed(edits) if (file := edit[0]) in often}
    names = [f"{file}: {new}" for file, _, new, _ in edits]
    marks = [() if edit in first.values() else (pytest.mark.slow,) for edit in edits]
    return [pytest.param(edit, id=name, marks=its) for edit, name, its in zip(edits, names, marks, strict=True)]


@pytest.mark.parametrize("edit", seldom(EDITS, often={"arithmetic/exact.py", "digits/data.py", "training/fit.py"}))
def test_an_edit_that_changes_bits_changes_the_signature(
    edit: Edit, signer: Signer, blocks: dict[str, Variant], signatures: Callable, tmp_path: Path
) -> None:
    file, old, new, name = edit
    assert old in (SOURCES / file).read_text(encoding="utf-8")
    found = signer(edited(tmp_path, {file: lambda text: text.replace(old, new, 1)}), {name: blocks[name]})[name]
    assert isinstance(found, dict) or any(words in found for words in BROKEN), found
    assert found != signatures(name)


@pytest.mark.parametrize("names", [("modern", "recipe"), pytest.param([*BLOCKS], marks=pytest.mark.slow)], ids=len)
def test_comments_in_every_module_change_no_signature(
    names: Sequence[str], signer: Signer, blocks: dict[str, Variant], signatures: Callable, tmp_path: Path
) -> None:
    edits = {name: lambda text: f"# a comment\n{text}\n# another\n" for name in numeric()}
    found = signer(edited(tmp_path, edits), {name: blocks[name] for name in names})
    assert found == {name: signatures(name) for name in names}


def test_every_module_that_trainings_import_has_an_edit(signer: Signer, blocks: dict[str, Variant]) -> None:
    found = signer(SOURCES.parent, {"modern": blocks["modern"]}, "loaded")["modern"]
    loaded = {Path(name).relative_to(SOURCES).as_posix() for name in found}
    beside = {
        "runs/__init__.py",
        "runtime/__init__.py",
        "runtime/errors.py",
        "runtime/layout.py",
    }  # messages, and where checkpoints lie
    assert loaded - set(numeric()) <= beside
    bare = {name for name in loaded if len((SOURCES / name).read_text().splitlines()) < 3}  # a docstring
    assert loaded - beside - bare <= {file for file, *_ in EDITS} | set(UNSEEN)


# trials


def test_trials_that_differ_in_amounts_have_one_structure_and_others_another(params: Params) -> None:
    modern = params.variants["modern"]
    adam = modern.optimizer.model_dump()
    first = signature.structure(modern)
    for changes in (
        {"optimizer": adam | {"lr": 0.123, "beta2": 0.999}},
        {"initialisation": modern.initialisation.model_dump() | {"scale": 3.3}},
        {"schedule": {"kind": "cosine", "final": 0.5}},
    ):
        assert signature.structure(signature.changed(modern, **changes)) == first
    for changes in (
        {"optimizer": adam | {"weight_decay": 0.1}},  # from none to some
        {"optimizer": adam | {"kind": "adamw"}},
        {"batch_size": 64},
        {"epochs": 11},
        {"network": modern.network.model_dump() | {"activation": "tanh"}},
        {"schedule": {"kind": "constant"}},
    ):
        assert signature.structure(signature.changed(modern, **changes)) != first


TRIAL_EDITS = {
    edit[0]: edit for edit in reversed(EDITS) if edit[0] not in FORMS and edit[0] != "digits/datamodule.py"
}.values()
"""The first edit of each module that changes the bits of such a training; the fast module has no part in the other."""


@pytest.fixture(scope="module")
def structures(signer: Signer, blocks: dict[str, Variant]) -> tuple[dict[str, Variant], dict[str, Any]]:
    """Those of the blocks, and their signatures by these sources."""
    found = {name: signature.structure(block) for name, block in blocks.items()}
    assert all(found[name] != block for name, block in blocks.items())
    return found, signer(SOURCES.parent, found)


@pytest.mark.slow
@pytest.mark.parametrize("edit", TRIAL_EDITS, ids=lambda edit: f"{edit[0]}: {edit[2]}")
def test_an_edit_that_changes_a_trial_changes_the_signature_of_its_structure(
    edit: Edit, signer: Signer, structures: tuple[dict[str, Variant], dict[str, Any]], tmp_path: Path
) -> None:
    file, old, new, name = edit
    there = edited(tmp_path, {file: lambda text: text.replace(old, new, 1)})
    assert signer(there, {name: structures[0][name]})[name] != structures[1][name]


# signatures in use


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for what code gave before."""
    monkeypatch.setattr(signing, "home", lambda: tmp_path / "signed")
    return tmp_path / "signed"


def refuse(*arguments: object) -> None:
    raise AssertionError("it is signed again")


def test_a_block_is_signed_once_by_the_same_code(
    params: Params, digits: Digits, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = small(params.variants["modern"])
    first = signing.of(variant, digits)
    monkeypatch.setattr(signature, "sign", refuse)
    assert signing.of(variant, digits) == first
    for name, value in (("source_sha256", "other sources"), ("processor", "another processor")):
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, name, lambda value=value: value)
            with pytest.raises(AssertionError, match="signed again"):
                signing.of(variant, digits)
    next(home.glob("*.json")).write_text("{")  # a damaged one is none
    with pytest.raises(AssertionError, match="signed again"):
        signing.of(variant, digits)


def test_trials_of_one_structure_are_signed_once(
    params: Params, digits: Digits, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = small(params.variants["modern"])
    first = signing.of_trial(variant, digits)
    monkeypatch.setattr(signature, "sign", refuse)
    faster = signature.changed(variant, optimizer=variant.optimizer.model_dump() | {"lr": 0.01})
    assert signing.of_trial(faster, digits) == first


@pytest.fixture(scope="module")
def staged(params: Params, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """Params of a small `modern`, and a folder with its signature as its stage writes and keeps it."""
    block = params.model_copy(update={"variants": {"modern": small(params.variants["modern"], epochs=1)}})
    folder = tmp_path_factory.mktemp("staged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "home", lambda: folder / "signed")
        signing.stage(block, "modern", prepared / "train.safetensors", folder / "signatures" / "modern.json")
    return block, folder


@pytest.fixture
def signed(staged: tuple[Params, Path], home: Path, tmp_path: Path) -> tuple[Params, Path]:
    """Those params, and a signature of the test's own."""
    shutil.copytree(staged[1], tmp_path, dirs_exist_ok=True)
    return staged[0], tmp_path / "signatures" / "modern.json"


def test_the_key_of_a_run_follows_its_signature(signed: tuple[Params, Path], prepared: Path, tmp_path: Path) -> None:
    params, path = signed
    content, data = json.loads(path.read_text()), prepared / "train.safetensors"
    train.train(params, "modern", {3: tmp_path / "with"}, data, path, None)
    train.train(params, "modern", {3: tmp_path / "without"}, data, None, None)
    for name in ("run.json", "history.csv", "trace", "weights.safetensors"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    run_json = json.loads((tmp_path / "with" / "run.json").read_text())["run"]
    assert set(run_json) == {"key", "weights.sha256", "data.sha256", "signature"}
    assert run_json["signature"] == fingerprint.json_sha256(content)
    variant = params.variants["modern"]
    keys = {
        fingerprint.run_key(*one)
        for one in (
            (variant, 3, run_json["data.sha256"], run_json["signature"]),
            (variant.model_copy(update={"epochs": 99}), 3, run_json["data.sha256"], run_json["signature"]),
            (variant, 4, run_json["data.sha256"], run_json["signature"]),
            (variant, 3, "d", run_json["signature"]),
            (variant, 3, run_json["data.sha256"], "s"),
        )
    }
    assert len(keys) == 5
    assert run_json["key"] in keys
    assert Record.read(tmp_path / "with" / "run.json").fingerprints == run_json


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: None, "No such file or directory"),
        (lambda text: "{", "not a signature"),
        (lambda text: json.dumps({"block": 1}), "not a signature"),
        (lambda text: text.replace(json.loads(text)["block"], "0" * 64), "of another block than variants.modern"),
        (lambda text: text.replace(json.loads(text)["data"], "0" * 64), "of other training digits"),
        (
            lambda text: text.replace(json.loads(text)["digests"]["files"]["trace"], "0" * 64),
            "this code gives other files.trace",
        ),
    ],
)
def test_a_stale_signature_stops_a_training_in_one_line(
    signed: tuple[Params, Path], prepared: Path, tmp_path: Path, edit: Callable[[str], str | None], said: str
) -> None:
    params, path = signed
    text = edit(path.read_text())
    path.write_text(text) if text else path.unlink()
    with pytest.raises(InputError) as caught:
        train.train(params, "modern", {3: tmp_path / "out"}, prepared / "train.safetensors", path, None)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith(f"run `dvc repro {tmp_path}/dvc.yaml:signature@modern`")
    assert not (tmp_path / "out").exists()


def test_runs_from_before_signatures_are_read_by_their_keys_and_digests(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of_then = {
        "key": "ab" * 32, "weights.sha256": "w", "data.sha256": "d", "source.sha256": "s", "threads": "1",
        "canary": "381da773b390aa3e",
    }  # fmt: skip
    block = params.variants["modern"].model_dump(mode="json")
    then = {"variant": "modern", "seed": 1, "run": run_of_then, "parameters": block}
    (tmp_path / "run.json").write_text(json.dumps(then))
    record = Record.read(tmp_path / "run.json")
    assert record.fingerprints == {name: run_of_then[name] for name in ("key", "data.sha256", "weights.sha256")}
    assert record.signature == ""
    monkeypatch.setattr(journal, "home", lambda: tmp_path)
    digests = {"key": "ab" * 32, "data": "d", "source": "s", "threads": 1, "canary": "381da773b390aa3e"}
    around = {"experiment": "lenet5", "store": "", "tags": {}, "started": 1, "status": "FINISHED", "ended": 2}
    folder = tmp_path / f"modern-1-{'ab' * 8}"
    folder.mkdir()
    (folder / "entry.json").write_text(
        json.dumps({"variant": "modern", "seed": 1, "parameters": block} | digests | around)
    )
    entry = journal.read(folder)
    assert entry is not None
    assert entry.record.with_weights("w") == record
    entry.end("FINISHED")  # which writes it as today
    again = journal.read(folder)
    assert again is not None
    assert again.record == entry.record


def test_where_the_arithmetic_is_off_nothing_is_trained_or_signed(
    params: Params, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off() -> None:
        raise InputError("the arithmetic of this machine is off: add")

    monkeypatch.setattr("lenet.arithmetic.conformance.check", off)
    data = prepared / "train.safetensors"
    with pytest.raises(InputError, match="is off: add"):
        train.train(params, "modern", {3: tmp_path / "out"}, data, None, None)
    with pytest.raises(InputError, match="is off: add"):
        signing.stage(params, "modern", data, tmp_path / "modern.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_comment_retrains_nothing_and_a_change_of_bits_what_it_touches(copy: Path) -> None:
    """In a small checkout, by `lenet repro`: what DVC runs after each edit."""
    folder = copy
    both = {"signature@modern", "signature@original-tanh"}
    rule = folder / "src/lenet/training/objective.py"
    text = rule.read_text()
    rule.write_text(f"{text}\n# a comment\n")
    assert {name for name in stages(folder) if not name.startswith("evaluate")} == both | {"compare"}
    assert run("git", "status", "--porcelain", "signatures", "metrics", cwd=folder).stdout == ""
    rule.write_text(text.replace("(2 / count)", "(1 / count)"))
    stale = run(
        *lenet_command("train", "original-tanh", "1", "--data", "data/train.safetensors", "--signature",
                       "signatures/original-tanh.json", "--out", "runs/x-1", "--no-track"),
        cwd=folder, status=2,
    ).stderr  # fmt: skip
    assert "signatures/original-tanh.json is stale: this code gives other" in stale
    assert stale.strip().endswith("run `dvc repro signature@original-tanh`")
    found = stages(folder)
    assert both | {"train@original-tanh-1"} <= found
    assert "train@modern-1" not in found
    changed = run("git", "status", "--porcelain", "signatures", cwd=folder).stdout.split()
    assert changed == ["M", "signatures/original-tanh.json"]


def stages(folder: Path) -> set[str]:
    """The stages that `lenet repro` starts."""
    run(*lenet_command("repro", "--no-track"), cwd=folder, timeout=500)
    return {entry["stage"] for entry in json.loads((folder / ".dvc/tmp/lenet/logs/timeline.json").read_text())}
