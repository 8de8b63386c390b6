"""What is known of MNIST's test digits beside their labels: which labels people doubt, and who wrote the digits.

Doubted labels (Northcutt, Athalye & Mueller 2021, "Pervasive Label Errors in Test Sets Destabilize Machine Learning
Benchmarks"; the votes are mturk/mnist_mturk.json of the repository cleanlab/label-errors). A network's predictions cast
doubt on 100 labels. Each of these digits was shown to five people, who chose between MNIST's label, the network's, and
neither. Nobody looked at the other 9,900.

Writers. Half of the digits are by high-school students (NIST's SD-1), half by employees of the Census Bureau (SD-3);
of the students at most 250 (LeCun 1998, §III.A). Yadav & Bottou 2019 ("Cold Case: the Lost MNIST Digits") found MNIST's
digits in NIST's files: the first 5,001 are the students', in random order, and the other 4,999 are NIST's digits
35,000 … 39,998, which stand writer by writer (hungarian_match_test.py of the repository facebookresearch/qmnist).
MNIST's web page has it the other way round, the first 5,000 from SD-3.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from lenet.digits.data import LABELS
from lenet.digits.fetch import SHA256

PEOPLE, CANDIDATES = 5, 100


@dataclass(frozen=True)
class Doubt:
    """A test digit whose label at most two of five people chose.

    Attributes:
        index: its place in MNIST's test file, from 0.
        other: the network's label, which people could choose as well.
        votes: how many people chose MNIST's label, the other one, and neither.
    """

    index: int
    other: int
    votes: tuple[int, int, int]


DOUBTS = (
    Doubt(947, 9, (0, 5, 0)),
    Doubt(1621, 6, (2, 3, 0)),
    Doubt(1901, 4, (2, 3, 0)),
    Doubt(2130, 9, (2, 2, 1)),
    Doubt(2462, 0, (0, 4, 1)),
    Doubt(2597, 3, (0, 4, 1)),
    Doubt(2654, 1, (0, 2, 3)),
    Doubt(3520, 4, (2, 0, 3)),
    Doubt(3558, 0, (1, 4, 0)),
    Doubt(5937, 3, (1, 3, 1)),
    Doubt(6651, 6, (0, 5, 0)),
    Doubt(6783, 6, (2, 3, 0)),
    Doubt(8527, 9, (2, 2, 1)),
    Doubt(9679, 3, (2, 0, 3)),
    Doubt(9729, 6, (2, 3, 0)),
)
"""In file order."""

WRITERS = {"high-school students": slice(0, 5001), "Census Bureau employees": slice(5001, 10_000)}
"""Who wrote which of the test digits, in file order."""


IN_ORDER = "Census Bureau employees"
"""Whose digits stand writer by writer."""

PER_WRITER = 100
"""About how many of these are of one writer: the students wrote 117 each (58,527 digits by 500, LeCun 1998, §III.A)."""


def are_test_digits(index: np.ndarray, labels: np.ndarray) -> bool:
    """Whether these (n,) are MNIST's test digits: all, in file order, with labels that have its file's SHA-256."""
    header = LABELS.to_bytes(4, "big") + len(labels).to_bytes(4, "big")
    digest = hashlib.sha256(header + labels.astype(np.uint8).tobytes()).hexdigest()
    return digest == SHA256["t10k-labels-idx1-ubyte"] and bool((index == np.arange(len(labels))).all())
