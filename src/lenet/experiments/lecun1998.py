"""What LeCun, Bottou, Bengio and Haffner (1998) report: the figures' numbers, to stand beside ours.

Errors are fractions of 1. Those of Fig. 5 and 6 are read off the curves, to 0.026 points.
"""


def _fractions(*per_cent: float) -> tuple[float, ...]:
    return tuple(value / 100 for value in per_cent)


PASSES = 20
TRAIN_ERROR = _fractions(
    4.89, 3.04, 1.77, 1.48, 1.22, 0.91, 0.78, 0.70, 0.57, 0.49,
    0.47, 0.44, 0.42, 0.39, 0.39, 0.39, 0.39, 0.36, 0.36, 0.36,
)  # fmt: skip
"""Fig. 5: errors in each pass while training, before each update. A 21st point, 0.36, is plotted, too."""
TEST_ERROR = _fractions(
    2.65, 2.24, 1.48, 1.43, 1.43, 1.09, 1.04, 1.07, 0.99, 0.96,
    0.96, 0.99, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96,
)  # fmt: skip
"""Fig. 5: errors on the test digits after each pass."""

SIZES = {15_000: 0.0168, 30_000: 0.0114, 60_000: 0.0094}
"""Fig. 6: test errors after training on so many digits; the text rounds the last to 0.95 %."""
SIZES_TRAIN = {15_000: 0.0005, 30_000: 0.0031, 60_000: 0.0035}
"""Fig. 6: errors on the training digits."""
DISTORTED_DIGITS = (359, 366, 339, 330, 336, 376, 331, 337, 333, 334)
"""Fig. 7: the ten digits, 0 … 9, whose distortions it shows, by their places in MNIST's training file."""
ERROR, DISTORTED_ERROR = 0.0095, 0.0082
"""Without and with distorted digits. §III.C says 0.95 and 0.8 %; Fig. 8 shows 82 errors."""
STEP_SIZES = 7e-5, 0.016
"""The smallest and the largest effective learning rate in the first pass (App. C)."""

_FIGURE_8 = """
247:4>6 449:3>5 582:8>2 659:2>1 674:5>3 829:4>8 926:2>8 938:3>5 1014:6>5 1039:7>3 1232:9>4 1319:8>0 1328:7>8
1393:5>3 1530:8>7 1621:0>6 1681:3>7 1790:2>7 1878:8>3 1901:9>4 1955:8>2 2035:5>3 2043:4>8 2109:3>9 2118:6>0
2129:9>8 2130:4>9 2135:6>1 2293:9>4 2387:9>1 2414:9>4 2462:2>0 2654:6>1 2921:3>5 2927:3>2 2939:9>5 3030:6>0
3422:6>0 3520:6>0 3762:6>8 3780:4>6 3808:7>3 3869:9>4 3941:4>6 4176:2>7 4224:9>7 4265:4>3 4369:9>4 4405:9>4
4425:9>4 4497:8>7 4575:4>2 4601:8>4 4740:3>5 4956:8>4 5736:6>5 5749:8>5 5955:3>8 5973:3>8 6091:9>8 6101:1>5
6173:9>8 6538:6>3 6557:0>2 6558:6>5 6571:9>5 6597:0>7 6783:1>6 7434:4>9 8059:2>1 8094:2>8 8408:8>5 8527:4>9
9009:7>2 9015:7>2 9679:6>5 9692:9>7 9698:6>1 9729:5>6 9770:5>0 9792:4>9 9904:2>8
"""
MISSED = {
    int(index): (int(label), int(answer))
    for index, label, answer in (one.replace(">", ":").split(":") for one in _FIGURE_8.split())
}
"""Fig. 8: the 82 test digits that LeNet-5 misses when trained with distortions: place in MNIST's file → label, answer.

Identified by comparing the figure's pictures with the test file: all 82 are found, with their labels.
"""

CLASSIFIERS = {
    "linear": 0.12,
    "[deslant] linear": 0.084,
    "pairwise linear": 0.076,
    "k-nearest neighbours, Euclidean": 0.05,
    "[deslant] k-nearest neighbours": 0.024,
    "40 principal components, quadratic": 0.033,
    "1000 radial basis functions, linear": 0.036,
    "[16×16] tangent distance": 0.011,
    "support vectors, polynomial of degree 4": 0.011,
    "reduced-set support vectors, degree 5": 0.01,
    "[distorted] virtual support vectors, degree 9": 0.008,
    "28×28-300-10": 0.047,
    "[distorted] 28×28-300-10": 0.036,
    "[deslant] 20×20-300-10": 0.016,
    "28×28-1000-10": 0.045,
    "[distorted] 28×28-1000-10": 0.038,
    "28×28-300-100-10": 0.0305,
    "[distorted] 28×28-300-100-10": 0.025,
    "28×28-500-150-10": 0.0295,
    "[distorted] 28×28-500-150-10": 0.0245,
    "[16×16] LeNet-1": 0.017,
    "LeNet-4": 0.011,
    "LeNet-4 with local learning instead of its last layer": 0.011,
    "LeNet-4 with k-nearest neighbours instead of its last layer": 0.011,
    "LeNet-5": 0.0095,
    "[distorted] LeNet-5": 0.008,
    "[distorted] boosted LeNet-4": 0.007,
}
"""Fig. 9: test errors of all methods."""
