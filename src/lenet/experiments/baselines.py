"""Job baseline: one of the other classifiers of the paper's Fig. 9, by scikit-learn → its errors on the test digits.

Each is fitted to all training digits, with settings that were fixed beforehand, and tested once. The paper leaves much
open here: these are classifiers of its rows' kinds (BASELINES says how each is made).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from lenet.digits.data import Digits, load_digits
from lenet.experiments import lecun1998
from lenet.runtime import processes
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_json

Images = Float[np.ndarray, "n 784"]
Labels = UInt8[np.ndarray, " n"]
Predict = Callable[[Images], np.ndarray]
Fit = Callable[[Images, Labels], Predict]


@dataclass(frozen=True)
class Baseline:
    """A classifier.

    Attributes:
        row: its name in lecun1998.CLASSIFIERS.
        how: what is done here, in words.
        fit: images (0 … 1) and labels → what answers for images.
        deslanted: whether images are made upright before.
    """

    row: str
    how: str
    fit: Fit
    deslanted: bool = False


def baseline(name: str, train: Path, test: Path, out: Path) -> None:
    """Fit a classifier to the training digits and write how many test digits it misses.

    Args:
        name: of BASELINES.
        train: the file of training digits.
        test: the file of test digits.
        out: where the result goes.

    Raises:
        InputError: there is no such classifier, or a file is missing or faulty.
    """
    if name not in BASELINES:
        raise InputError(f"there is no baseline {name!r}; legal: {', '.join(BASELINES)}")
    its = BASELINES[name]
    learned, tested = load_digits(train), load_digits(test)
    with threadpool_limits(1):  # so that the bits do not depend on the number of cores
        answers = its.fit(_pixels(learned, its), learned.labels.numpy())(_pixels(tested, its))
    misses = int((answers != tested.labels.numpy()).sum())
    processes.check()
    write_json(
        out,
        {
            "row": its.row,
            "how": its.how,
            "misses": misses,
            "count": len(tested),
            "error": misses / len(tested),
            "published": lecun1998.CLASSIFIERS[its.row],
        },
    )


def _pixels(digits: Digits, its: Baseline) -> Images:
    images = digits.images.numpy()
    return (deslant(images) if its.deslanted else images / np.float32(255)).reshape(len(images), -1).astype(np.float32)


def deslant(images: UInt8[np.ndarray, "n 28 28"]) -> Float[np.ndarray, "n 28 28"]:
    """Shear each digit about its centre of mass until its ink leans neither way, by linear interpolation along lines.

    The slope is the regression of the ink's column on its line: its covariance over the variance of lines.
    """
    ink = images / np.float32(255)
    place = np.arange(28, dtype=np.float32)
    total = ink.sum((1, 2)).clip(1e-6)
    line, column = ((ink.sum(axis) * place).sum(1) / total for axis in (2, 1))
    y, x = place[None] - line[:, None], place[None] - column[:, None]
    variance = (ink.sum(2) * y**2).sum(1) / total
    slope = np.einsum("nyx,ny,nx->n", ink, y, x) / total / variance.clip(1e-6)
    source = place[None, None] + slope[:, None, None] * y[:, :, None]
    left = np.floor(source).astype(int)
    share = source - left
    padded = np.pad(ink, ((0, 0), (0, 0), (1, 2)))
    before, after = (np.take_along_axis(padded, (left + shift).clip(0, 30), 2) for shift in (1, 2))
    return before * (1 - share) + after * share


def _signs(labels: Labels) -> np.ndarray:
    """Targets (n, 10): 1 for the right class, −1 for the others."""
    return 2.0 * np.eye(10)[labels] - 1


def _linear(images: Images, labels: Labels) -> Predict:
    model = LinearRegression().fit(images, _signs(labels))
    return lambda x: model.predict(x).argmax(1)


def _pairwise(images: Images, labels: Labels) -> Predict:
    """A squashed unit for each pair of classes, fitted to their digits alone; a class's score is the sum of its units.

    Without squashing, units add up that are far from both of their classes.
    """
    units = {}
    for one, other in combinations(range(10), 2):
        its = (labels == one) | (labels == other)
        units[one, other] = LogisticRegression(C=0.1, max_iter=1000).fit(images[its], labels[its] == one)

    def answer(x: Images) -> np.ndarray:
        scores = np.zeros((len(x), 10))
        for (one, other), unit in units.items():
            output = np.tanh(unit.decision_function(x) / 2)
            scores[:, one] += output
            scores[:, other] -= output
        return scores.argmax(1)

    return answer


def _neighbours(images: Images, labels: Labels) -> Predict:
    return KNeighborsClassifier(3, algorithm="brute").fit(images, labels).predict


def _quadratic(images: Images, labels: Labels) -> Predict:
    features = make_pipeline(PCA(40, svd_solver="full"), PolynomialFeatures(2, include_bias=False))
    model = LinearRegression().fit(features.fit_transform(images), _signs(labels))
    return lambda x: model.predict(features.transform(x)).argmax(1)


def _radial(images: Images, labels: Labels) -> Predict:
    centres = np.concatenate(
        [KMeans(100, n_init=1, random_state=0).fit(images[labels == digit]).cluster_centers_ for digit in range(10)]
    )
    width = np.median(np.sort(pairwise_distances(centres), 1)[:, 1])

    def features(x: Images) -> np.ndarray:
        return np.exp(-pairwise_distances(x, centres, metric="sqeuclidean") / (2 * width**2))

    model = LinearRegression().fit(features(images), _signs(labels))
    return lambda x: model.predict(features(x)).argmax(1)


def _support(images: Images, labels: Labels) -> Predict:
    return SVC(kernel="poly", degree=4, coef0=1, gamma=1 / 50, C=10, cache_size=2000).fit(images, labels).predict


def _layers(*units: int) -> Fit:
    def fit(images: Images, labels: Labels) -> Predict:
        model = MLPClassifier(
            units, activation="tanh", solver="sgd", alpha=0, batch_size=20, learning_rate_init=0.01, momentum=0.9,
            max_iter=20, tol=0, n_iter_no_change=20, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):  # 20 epochs are the plan
            return model.fit(images, labels).predict

    return fit


LAYERS = "tanh, softmax, 20 epochs of SGD with momentum 0.9, rate 0.01, batches of 20"
BASELINES = {
    "linear": Baseline("linear", "ten linear units, least squares", _linear),
    "linear-deslanted": Baseline("[deslant] linear", "ten linear units, least squares", _linear, True),
    "pairwise": Baseline("pairwise linear", "45 units, tanh, logistic regression with C = 0.1", _pairwise),
    "neighbours": Baseline("k-nearest neighbours, Euclidean", "k = 3", _neighbours),
    "neighbours-deslanted": Baseline("[deslant] k-nearest neighbours", "k = 3", _neighbours, True),
    "quadratic": Baseline("40 principal components, quadratic", "820 products, least squares", _quadratic),
    "radial": Baseline("1000 radial basis functions, linear", "100 means of each class, least squares", _radial),
    "support": Baseline("support vectors, polynomial of degree 4", "(1 + x·y / 50)⁴, C = 10", _support),
    "layers-300": Baseline("28×28-300-10", LAYERS, _layers(300)),
    "layers-1000": Baseline("28×28-1000-10", LAYERS, _layers(1000)),
    "layers-300-100": Baseline("28×28-300-100-10", LAYERS, _layers(300, 100)),
    "layers-500-150": Baseline("28×28-500-150-10", LAYERS, _layers(500, 150)),
}
