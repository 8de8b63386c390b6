"""The judge of reruns: grades in their order, where two trainings part, and what differs between their inputs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lenet.cli import cli
from lenet.evaluation.judge import Account
from lenet.reproduce import evidence, rerun, verdict
from lenet.reproduce.evidence import Outcome
from lenet.runtime.errors import InputError
from lenet.tracking import Tracked
from lenet.training import fingerprint

THEN = {
    "key": "k", "data": "d", "code": "s", "parameters": {"optimizer.lr": "0.1", "epochs": "2"}, "signature": "g",
    "conformance": "right", "packages": {"torch": "2.13.0"}, "threads": "1", "processor": "AVX512",
}  # fmt: skip
OTHER = {"packages": {"torch": "2.14.0"}, "threads": "2", "processor": "AVX2"}
LOSSES = np.arange(6, dtype="<u4").reshape(2, 3)
NUMBERS = {"test/misses": 100.0, "validation/loss": 0.123456}
BEFORE = Outcome("w", "a", 100, NUMBERS, LOSSES, ("e1", "w"))


def judged(after: Outcome, now: Account = THEN, seeds: tuple[int, ...] = (), then: Account = THEN) -> verdict.Verdict:
    return verdict.judge_rerun((then, BEFORE), (now, after), seeds)


@pytest.mark.parametrize(
    ("after", "grade"),
    [
        (BEFORE, "bitwise"),
        (replace(BEFORE, weights="v"), "predictions"),
        (replace(BEFORE, weights="v", answers="b", numbers=NUMBERS | {"validation/loss": 0.12351}), "metrics"),
        (replace(BEFORE, weights="v", answers="b", numbers=NUMBERS | {"validation/loss": 0.1234}), "within-noise"),
        (replace(BEFORE, weights="v", answers="b", misses=101, numbers={"test/misses": 101.0}), "within-noise"),
        (replace(BEFORE, weights="v", answers="b", misses=150, numbers={"test/misses": 150.0}), "different"),
        (replace(BEFORE, weights="v", answers=None, misses=None, numbers={}), "different"),
    ],
)
def test_each_grade_is_given_for_what_it_says(after: Outcome, grade: str) -> None:
    assert judged(after).grade == grade
    assert grade in verdict.GRADES


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (replace(BEFORE, losses=LOSSES + 1), "the loss of step 1 in epoch 1: one of"),
        (replace(BEFORE, losses=LOSSES[:, :1]), "the loss of step 2 in epoch 1: one of"),
        (replace(BEFORE, losses=LOSSES[:1]), "the loss of step 1 in epoch 2: one of"),
        (replace(BEFORE, epochs=("x", "w")), "the weights after epoch 1: one of"),
        (replace(BEFORE, answers="b"), "what evaluate made: misses 100, answers a → misses 100, answers b: one of"),
        (replace(BEFORE, answers=None, misses=196), "what evaluate made: misses 100 → misses 196: one of"),
    ],
)
def test_the_same_weights_beside_anything_else_that_differs_are_no_verdict(after: Outcome, said: str) -> None:
    with pytest.raises(InputError, match=f"bit for bit, but not {said}"):
        judged(after)


def test_noise_is_that_of_the_variant_s_seeds_and_at_least_that_of_counting() -> None:
    """√(2 · 100) · 2.58 = 36; seeds of 70, 100 and 130 have a variance of 900: √(2 · 900) · 2.58 = 109."""
    far = replace(BEFORE, weights="v", answers="b", misses=140, numbers={"test/misses": 140.0})
    assert judged(far).grade == "different"
    assert judged(far, seeds=(99, 100, 101)).grade == "different"
    assert judged(far, seeds=(70, 100, 130)).grade == "within-noise"


def test_unknown_answers_are_not_the_same_answers() -> None:
    then, after = (replace(BEFORE, weights=weights, answers=None, numbers={}) for weights in ("w", "v"))
    found = verdict.judge_rerun((THEN, then), (THEN, after), ())
    assert found.grade == "within-noise"
    assert [part.same for part in found.stages] == [True, False, None]
    further = verdict.judge_rerun((THEN, then), (THEN, replace(after, misses=101)), ())
    assert (further.stages[2].same, further.stages[2].change) == (False, "misses 100 → misses 101")


def test_the_first_step_and_epoch_that_differ_are_named() -> None:
    losses = LOSSES.copy()
    losses[1, 0] += 1
    losses[1, 2] += 1
    found = judged(replace(BEFORE, weights="v", losses=losses, epochs=("e1", "v")))
    assert (found.step, found.epoch) == ((2, 1), 2)
    assert "the loss of step 1 in epoch 2 and the weights after epoch 2" in found.summary
    unknown = judged(replace(BEFORE, weights="v", losses=None, epochs=()))
    assert (unknown.step, unknown.epoch) == (None, None)
    assert "where they diverge is unknown" in unknown.summary
    fewer = judged(replace(BEFORE, weights="v", losses=LOSSES[:, :2], epochs=("e0", "v")))
    assert (fewer.step, fewer.epoch) == ((1, 3), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "x", "signature": "x"}, ["data"]),  # a signature is of the digits and the block, too
        ({"parameters": {"optimizer.lr": "0.2", "epochs": "2"}, "signature": "x"}, ["parameters"]),
        ({"parameters": {"epochs": "2"}}, ["parameters"]),
        ({"signature": "x"}, ["code: it computes something else: signature g → x"]),
        ({"signature": "x", "code": "y"}, ["code: it computes something else: signature g → x, source.sha256 s → y"]),
        ({"code": "y"}, ["code: other sources, whose change the signature does not see: s → y"]),
        ({"data": "x", "signature": "x", "code": "x"}, ["data", "code"]),
        ({"conformance": "sqrt, product"}, ["conformance"]),
        ({"signature": "x", "conformance": "sqrt"}, ["code", "conformance"]),
        (OTHER, [f"broken: run.key is the same, so the weights have to be, on every machine. {verdict.BROKEN}"]),
        ({"code": None, "data": None, "parameters": None, "conformance": None}, ["broken"]),  # by the key
        ({}, ["broken"]),
        ({"key": "x"}, ["unknown"]),
    ],
)
def test_what_differs_between_the_inputs_is_named(change: dict, said: list[str]) -> None:
    found = judged(replace(BEFORE, weights="v"), THEN | change)
    assert [
        f"{cause.kind}: {cause.detail}"[: len(start)] for cause, start in zip(found.causes, said, strict=True)
    ] == said
    assert found.summary.endswith("; ".join(f"{cause.kind}: {cause.detail}" for cause in found.causes))
    assert judged(BEFORE, THEN | change).causes == []


def test_of_a_run_from_before_signatures_all_that_differs_may_be_why() -> None:
    former = THEN | {"signature": None, "conformance": None}
    for change, said in (
        (
            OTHER | {"key": "x", "data": "x"},
            "data d → x; packages torch 2.13.0 → 2.14.0; threads 1 → 2; processor AVX512 → AVX2",
        ),
        ({"packages": None}, "nothing known differs"),
    ):
        (cause,) = judged(replace(BEFORE, weights="v"), former | change, then=former).causes
        assert (cause.kind, cause.detail) == ("former", f"{evidence.FORMER}; {said}")
        assert judged(BEFORE, former | change, then=former).causes == []


def test_the_exit_status_is_0_for_the_accepted_grade_and_better_ones() -> None:
    for grade, accepted, status in (
        ("bitwise", "bitwise", 0), ("predictions", "bitwise", 4), ("metrics", "within-noise", 0),
        ("different", "within-noise", 1), ("different", "different", 0),
    ):  # fmt: skip
        found = verdict.Verdict(grade, "", [], None, None, [])
        assert rerun.Rerun(None, "", None, found, 0.0, None).exit_status(accepted) == status


def test_the_command_line_offers_every_grade() -> None:
    (option,) = [one for one in cli.commands["rerun"].params if one.name == "accept"]
    assert tuple(option.type.choices) == verdict.GRADES


def test_what_came_of_a_run_is_read_from_its_artifacts_each_number_in_its_place() -> None:
    """Of two epochs of three steps. What the files say counts before what a store has of the same."""
    losses = np.array([[2.0, 1.5, 1.0], [0.75, 0.5, 0.25]], "<f4")
    told = fingerprint.sha256_of(bytes([4, 5, 6]))
    files = {
        "trace": losses.tobytes(),
        "predictions.csv": b"index,label,answer\n2,7,6\n0,7,4\n1,7,5\n",
        "v-1.json": json.dumps(
            {
                "run": {"key": "k", "weights.sha256": "w"},
                "validation": {"loss": 0.5},
                "test": {"misses": 3, "count": 3, "error": 1.0, "answers.sha256": told},
            }
        ).encode(),
    }
    history = [{"epoch": epoch, "weights.sha256": digest} for epoch, digest in ((1, "e1"), (2, "w"))]
    stored = {"train/loss": 0.25, "validation/error": 0.125, "test/misses": 4.0}
    run = Tracked("v-1", "id", {}, {"weights.sha256": "w"}, stored, history, (), files.get)
    found = evidence.outcome(run)
    assert found.losses is not None
    assert found.losses.view("<f4").tolist() == losses.tolist()
    assert (found.weights, found.epochs, found.answers, found.misses) == ("w", ("e1", "w"), told, 3)
    assert found.numbers == {
        "validation/loss": 0.5,
        "validation/error": 0.125,
        "test/misses": 3.0,
        "test/count": 3.0,
        "test/error": 1.0,
    }
    assert evidence.outcome(replace(run, read=(files | {"predictions.csv": None}).get)).answers == told
    assert evidence.outcome(replace(run, read=(files | {"trace": losses.tobytes()[:-4]}).get)).losses is None
    assert evidence.outcome(replace(run, metrics={"test/misses": float("nan")}, read={}.get)).misses is None
    other = files | {"predictions.csv": b"index,label,answer\n0,7,4\n1,7,5\n2,4,7\n"}
    with pytest.raises(
        InputError, match=r"v-1: metrics/v-1\.json: test\.answers\.sha256 is .*, and .* by predictions\.csv"
    ):
        evidence.outcome(replace(run, read=other.get))


def test_a_rerun_that_tells_of_other_weights_than_it_has_written_contradicts_itself(tmp_path: Path) -> None:
    weights = {"C1.weight": torch.ones(2)}
    digest = fingerprint.tensors_sha256(weights)
    files = {name: tmp_path / name for name in ("weights.safetensors", "run.json", "history.csv")}

    def write(weights: dict[str, torch.Tensor], told: str, at_the_end: str) -> None:
        save_file(weights, files["weights.safetensors"])
        files["run.json"].write_text(json.dumps({"run": {"key": "k", "weights.sha256": told}, "parameters": {}}))
        files["history.csv"].write_text(f"epoch,weights.sha256\n1,{'0' * 64}\n2,{at_the_end}\n")

    write(weights, digest, digest)
    assert rerun._read("v-1", files).tags["weights.sha256"] == digest
    for content, faulty in (
        (({"C1.weight": torch.zeros(2)}, digest, digest), "run.json"),
        ((weights, "f" * 64, digest), "run.json"),
        ((weights, digest, "f" * 64), "history.csv"),
    ):
        write(*content)
        with pytest.raises(InputError, match=f"v-1: the rerun contradicts itself: {faulty}: weights.sha256 is"):
            rerun._read("v-1", files)
    for broken in (b"[]", b'{"run": {}, "parameters": {}}', b'{"a": 1}', None):
        files["run.json"].write_bytes(broken) if broken else files["run.json"].unlink()
        with pytest.raises(InputError, match=r"v-1: the rerun's files are not whole \("):
            rerun._read("v-1", files)
        run = Tracked("v-1", "id", {}, {}, {}, [], (), {"run.json": broken}.get)
        if broken and b"parameters" not in broken:
            with pytest.raises(InputError, match=r"v-1: run\.json is faulty"):
                rerun._block(run)
