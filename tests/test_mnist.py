"""What is known of MNIST's test digits, counted by hand on answers made by hand."""

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lenet.digits.data import Digits, load_digits
from lenet.experiments import lecun1998
from lenet.params.schema import Params
from lenet.report import comparison, draw, mnist
from lenet.runs.record import Record
from lenet.runtime.files import write_json

MISSED = {
    "original-tanh": {1: [0, 1, 947, 1621, 5000, 5001], 2: [0, 947]},
    "modern": {1: [9729, 9999], 2: []},
}
"""Variant → seed → test digits: of the doubted ones 2, 1, 1 and 0; of the students' 5, 2, 0 and 0."""


@pytest.fixture(scope="module")
def tested(prepared: Path) -> Digits:
    return load_digits(prepared / "test.safetensors")


def by_hand(params: Params, digits: Digits) -> dict[str, list[comparison.Run]]:
    """Runs that miss MISSED, as far as there are such digits, each by answering 9 more than the label, modulo 10."""
    found: dict[str, list[comparison.Run]] = {}
    for name, seeds in MISSED.items():
        for seed, places in seeds.items():
            missed = [place for place in places if place < len(digits)]
            labels = digits.labels.numpy().astype(int)
            answers = labels.copy()
            answers[missed] = (labels[missed] + 9) % 10
            table = pd.DataFrame({"index": digits.index.numpy(), "label": labels, "answer": answers})
            outputs = {f"output {digit}": np.where(answers == digit, 0.9, 0.0) for digit in range(10)}
            record = Record(name, seed, params.variants[name], "key", "data", "signature", "weights")
            history = pd.DataFrame({"epoch": [1], "train/error": [0.1]})
            images = {place: digits.images[place].numpy() for place in missed}
            found.setdefault(name, []).append(comparison.Run(record, history, table.assign(**outputs), images, None))
    return found


def described(params: Params, digits: Digits) -> dict[str, Any]:
    return comparison.describe(by_hand(params, digits)) | {"ladder": None, "sizes": None, "frontier": None}


def drawn(content: dict[str, Any], reports: Path) -> str:
    write_json(reports / "comparison.json", content)
    draw.draw(reports)
    return (reports / "comparison.html").read_text()


@pytest.fixture(scope="module")
def content(params: Params, tested: Digits) -> dict[str, Any]:
    """Not to be changed."""
    return described(params, tested)


def test_the_facts_are_of_mnist_s_test_digits(tested: Digits) -> None:
    places = [one.index for one in mnist.DOUBTS]
    assert places == sorted({*places})
    assert len(places) == 15
    for one in mnist.DOUBTS:
        assert one.other != tested.labels[one.index]
        assert sum(one.votes) == mnist.PEOPLE
        assert one.votes[0] < mnist.PEOPLE / 2  # most people did not choose MNIST's label
    unanimous = {one.index: (int(tested.labels[one.index]), one.other) for one in mnist.DOUBTS if one.votes[1] == 5}
    assert unanimous == {947: (8, 9), 6651: (0, 6)}
    assert [place for part in mnist.WRITERS.values() for place in range(part.start, part.stop)] == [*range(10_000)]


def test_only_mnist_s_whole_test_file_is_taken_for_it(tested: Digits) -> None:
    index, labels = tested.index.numpy(), tested.labels.numpy()
    assert mnist.are_test_digits(index, labels)
    assert mnist.are_test_digits(index, labels.astype(np.int64))  # as they are read from a CSV file
    assert not mnist.are_test_digits(index[:400], labels[:400])
    assert not mnist.are_test_digits(index[::-1], labels)
    other = labels.copy()
    other[947] = 9
    assert not mnist.are_test_digits(index, other)


def test_misses_of_doubted_labels_are_counted(content: dict, tested: Digits) -> None:
    found = content["labels"]["variants"]
    assert {name: one["misses"]["seeds"] for name, one in found.items()} == {"original-tanh": [2, 1], "modern": [1, 0]}
    assert found["original-tanh"]["misses"]["mean"] == 1.5
    assert found["original-tanh"]["error_without"]["seeds"] == pytest.approx([4 / 9985, 1 / 9985])
    assert found["modern"]["error_without"]["mean"] == pytest.approx(0.5 / 9985)
    assert content["variants"]["original-tanh"]["test_error"] == pytest.approx(4 / 10_000)  # the headline has them
    shown = {one["index"]: one for one in content["labels"]["digits"]}
    assert list(shown) == [one.index for one in mnist.DOUBTS]
    assert {index: one["missed_by"] for index, one in shown.items() if one["missed_by"]} == {947: 2, 1621: 1, 9729: 1}
    first = shown[947]
    assert (first["label"], first["other"], first["votes"]) == (8, 9, (0, 5, 0))
    assert first["answers"] == {"original-tanh": 7, "modern": 8}
    assert base64.b64decode(first["image"]) == tested.images[947].numpy().tobytes()
    assert shown[6651]["image"] is None  # no run misses it


def test_errors_are_given_for_each_group_of_writers(content: dict) -> None:
    students, employees = content["writers"]["groups"].values()
    assert (students["digits"], employees["digits"]) == (5001, 4999)
    # 0, 1, 947, 1621 and 5000 are the students', 5001 is not
    assert students["variants"]["original-tanh"]["seeds"] == pytest.approx([5 / 5001, 2 / 5001])
    assert employees["variants"]["original-tanh"]["seeds"] == pytest.approx([1 / 4999, 0])
    assert students["variants"]["modern"]["mean"] == 0
    assert employees["variants"]["modern"]["mean"] == pytest.approx(1 / 4999)


def test_clusters_are_looked_for_where_digits_stand_writer_by_writer(params: Params, tested: Digits) -> None:
    """In the employees' digits, from 5001: there a row of misses stands out. Among the students' none is looked for."""
    runs = by_hand(params, tested)
    for name, start in (("original-tanh", 1000), ("modern", 5001)):
        for run in runs[name]:
            labels = run.predictions["label"].to_numpy()
            answers = labels.copy()
            answers[start : start + 50] = (labels[start : start + 50] + 1) % 10
            run.predictions["answer"] = answers
    found = comparison.writers(runs)["clustering"]
    assert list(found) == ["original-tanh", "modern", "original-tanh − modern"]
    assert found["original-tanh"] is None  # all of the employees' digits are right
    # of 49 blocks of 100 the first has 50 misses: 100 · (0.25 / 49) over 4900 / 4899 · (p − p²), with p = 50 / 4900
    assert found["modern"]["effect"] == pytest.approx(100 * 0.25 / 49 / (4900 / 4899 * (50 / 4900) * (4850 / 4900)))
    assert found["modern"]["low"] < 1 < found["modern"]["high"] < 2
    assert found["original-tanh − modern"] == pytest.approx(found["modern"])


def test_the_page_shows_doubted_labels_and_writers(content: dict, tmp_path: Path) -> None:
    page = drawn(content, tmp_path)
    for name in ("labels", "writers"):
        assert f'href="#{name}"' in page
        assert page.count(f'<h2 id="{name}"') == 1
    labels = page[page.index('<h2 id="labels"') : page.index('<h2 id="writers"')]
    assert "of 4 misses of original-tanh, 1.5 are among them; of 1 misses of modern, 0.5 are among them." in labels
    assert '<td>0.04 ± 0.03</td><td>0.03 ± 0.02</td><td class="more">6 · 2</td><td class="more">2 · 1</td>' in labels
    assert len(re.findall(r"\d say \d, \d say \d", labels)) == 15
    assert labels.count("<img") == 3  # runs keep the pictures of what they miss
    assert ">0 say 8, 5 say 9<" in labels
    assert ">2 say 4, 2 say 9, 1 neither<" in labels
    assert "Runs keep the pictures" in labels
    writers = page[page.index('<h2 id="writers"') : page.index('<h2 id="ladder"')]
    assert "5,001 digits" in writers
    assert "<td>0.07 ± 0.04</td><td>0.01 ± 0.01</td><td>0.04 ± 0.03</td>" in writers
    assert "as if digits were independent" in page


def test_the_page_counts_where_misses_cluster_beyond_chance(content: dict, tmp_path: Path) -> None:
    found = {"effect": 2.44, "low": 0.7, "high": 1.3}
    clusters = {"original-tanh": found, "modern": found | {"effect": 1.2}, "original-tanh − modern": None}
    page = drawn(content | {"writers": content["writers"] | {"clustering": clusters}}, tmp_path)
    assert "<td>2.4</td><td>0.7 … 1.3</td>" in page
    assert "<td>original-tanh − modern</td><td>–</td><td>–</td>" in page
    assert (
        "Beyond chance, the design effect exceeds 1 in one of the two errors of single variants and in none of the one "
        "differences between variants."
    ) in page


def test_of_other_digits_the_page_says_nothing_of_this(params: Params, tested: Digits, tmp_path: Path) -> None:
    other = Digits(tested.images, tested.labels.clone(), tested.index)
    other.labels[5] = (other.labels[5] + 1) % 10
    for name, digits in (("few", tested[:400]), ("other", other)):
        content = described(params, digits)
        assert content["labels"] is content["writers"] is None
        page = drawn(content, tmp_path / name)
        for word in ("labels", "writers"):
            assert f'"#{word}"' not in page
            assert f'id="{word}"' not in page


def test_the_design_effect_is_what_the_page_and_the_docs_say() -> None:
    """1 + (m − 1)·ρ, against the variance of means over simulated writers with a given correlation."""
    generator = np.random.default_rng(1)
    digits, writers, rho, p = 20, 50, 0.1, 0.2
    chances = generator.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), (20_000, writers))  # of a miss, by writer
    errors = generator.binomial(digits, chances).sum(1) / (digits * writers)
    assert errors.var() / (p * (1 - p) / (digits * writers)) == pytest.approx(1 + (digits - 1) * rho, rel=0.05)
    assert [round(np.sqrt(1 + (m - 1) * 0.02), 1) for m in (20, 100)] == [1.2, 1.7]


def test_the_paper_s_own_misses_are_counted_as_the_docs_say() -> None:
    doubted = {one.index for one in mnist.DOUBTS} & set(lecun1998.MISSED)
    students = mnist.WRITERS["high-school students"]
    assert (len(doubted), sum(index < students.stop for index in lecun1998.MISSED)) == (10, 55)
    assert len(lecun1998.MISSED) == 82
