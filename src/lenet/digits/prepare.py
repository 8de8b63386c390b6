"""Stage prepare: the four IDX files → the training digits in one fixed order and, apart, the test digits."""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lenet.digits.data import IMAGES, LABELS, read_idx
from lenet.params.schema import TRAINING_DIGITS, Data
from lenet.runtime.errors import InputError
from lenet.runtime.files import whole, write_json

TEST_DIGITS = 10_000


def prepare(data: Data, raw: Path, train: Path, test: Path, digests: Path) -> None:
    """Validate the files in ``raw`` and write both sets, and their SHA-256 to ``digests``.

    Raises InputError and writes nothing on a fault.
    """
    images, labels = read_set(raw, "train", TRAINING_DIGITS)
    order = stratified_order(labels, data.order_seed)
    test_images, test_labels = read_set(raw, "t10k", TEST_DIGITS)
    _write(train, images[order], labels[order], order)
    _write(test, test_images, test_labels, np.arange(TEST_DIGITS))
    write_json(digests, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (test, train)})


def read_set(raw: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 28, 28) and labels (count,) of the set ``train`` or ``t10k``."""
    images_path, labels_path = raw / f"{name}-images-idx3-ubyte", raw / f"{name}-labels-idx1-ubyte"
    images, labels = read_idx(images_path, IMAGES), read_idx(labels_path, LABELS)
    if images.shape != (count, 28, 28):
        shape = "×".join(map(str, images.shape))
        raise InputError(f"{images_path}: {shape} images; MNIST has {count}×28×28")
    if labels.shape != (count,):
        raise InputError(f"{labels_path}: {len(labels)} labels; MNIST has {count}")
    if labels.max() > 9:
        raise InputError(f"{labels_path}: label {labels.max()} of digit {labels.argmax()}; legal: 0 … 9")
    return images, labels


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of all digits in which every stretch from the start holds each class in proportion.

    Within its class a digit's rank follows from SHA-256 of (seed, index), so that no library's generator is part of
    it; the digit of rank r among m then stands at about (r + u)/m of the way, with u in [0, 1) from the same hash.
    """
    hashes = [hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in range(len(labels))]
    places: list[tuple[Fraction, bytes, int]] = []
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=hashes.__getitem__)
        for rank, index in enumerate(members):
            jitter = Fraction(int.from_bytes(hashes[index][-4:], "big"), 2**32)
            places.append(((rank + jitter) / len(members), hashes[index], index))
    return np.array([index for _, _, index in sorted(places)])


def _write(path: Path, images: np.ndarray, labels: np.ndarray, index: np.ndarray) -> None:
    with whole(path) as beside:
        save_file({"images": images, "labels": labels, "index": index.astype(np.int64)}, beside)
