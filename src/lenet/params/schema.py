"""params.yaml as closed, frozen, default-free types. Every value is stated in the file, once; no torch here."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from lenet.runtime.errors import ParamsError

TRAINING_DIGITS = 60_000
IMAGE = 28  # pixels, the side of a digit's image

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A block of params.yaml: unknown, missing, mistyped, NaN and infinite values are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _closed(cls, block: Any) -> Any:
        if isinstance(block, dict) and (unknown := [key for key in block if key not in cls.model_fields]):
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"unknown key {names}; legal here: {', '.join(cls.model_fields)}")
        return block


class Pixels(Section):
    """The input values of a pixel of 0 (background) and of 255 (ink); grey levels lie linearly between."""

    background: float
    ink: float


class TrainablePooling(Section):
    """The paper's subsampling: the mean or sum of 2×2 inputs (§II.A, II.B), times a coefficient, plus a bias, squashed.

    With the sum the coefficient has four times the gradient, and sixteen times the second derivative.
    """

    kind: Literal["trainable", "trainable-sum"]
    coefficient: float  # every map's at the start
    bias: float  # likewise


class FixedPooling(Section):
    """Pooling without parameters and without squashing."""

    kind: Literal["average", "max"]


class Network(Section):
    """The choices within the LeNet-5 family."""

    activation: Literal["sigmoid", "scaled-tanh", "tanh", "relu"]
    pooling: Annotated[TrainablePooling | FixedPooling, Field(discriminator="kind")]
    C3: Literal["table", "dense"]
    output: Literal["squashed", "softmax", "rbf", "adaptive-rbf"]  # rbf: distances to fixed codes, or to learned ones


class Convolution(Section):
    """One convolution: its maps, the side of its kernels, and the pixels of zeros around its input."""

    maps: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]
    padding: Annotated[int, Field(ge=0)]


class ConvNetwork(Section):
    """A convolutional network as one builds it today (convnet.py). Its key ``stages`` tells it from LeNet-5.

    Stages of convolutions, with 2×2 pooling between them.
    """

    stages: Annotated[
        tuple[Annotated[tuple[Convolution, ...], Field(strict=False, min_length=1)], ...],
        Field(strict=False, min_length=1),
    ]

    @model_validator(mode="after")
    def _fits_the_field(self) -> "ConvNetwork":
        side = IMAGE
        for i, stage in enumerate(self.stages):
            side = side // 2 if i else side
            for j, convolution in enumerate(stage):
                side += 2 * convolution.padding
                if not 1 <= convolution.size <= side:
                    raise ValueError(f"stages.{i}.{j}: kernels of side {convolution.size} on maps of side {side}")
                side += 1 - convolution.size
        if side < 2:
            raise ValueError("stages: the last maps have one pixel; batch normalisation of one digit needs more")
        return self

    @property
    def output(self) -> str:
        """Of what kind the outputs are, as in Network."""
        return "softmax"


LOSSES_OF = {
    "squashed": ("mse",),
    "softmax": ("mse", "cross-entropy"),
    "rbf": ("mle", "map"),
    "adaptive-rbf": ("mle", "map"),
}
"""The losses that fit each kind of output."""

FAMILIES = LENET5, CONVNET = "network of 1998", "network of today"


def _family(network: Any) -> str:
    """Which network a block is for."""
    is_convnet = "stages" in network if isinstance(network, dict) else isinstance(network, ConvNetwork)
    return CONVNET if is_convnet else LENET5


AnyNetwork = Annotated[Annotated[Network, Tag(LENET5)] | Annotated[ConvNetwork, Tag(CONVNET)], Discriminator(_family)]


class NoDistortion(Section):
    """The training digits as they are."""

    kind: Literal["none"]


class AffineDistortion(Section):
    """Every training digit through an affine map of its own, anew in each epoch (distortion.py).

    Each value is drawn uniformly between its negative and itself. The paper's distortions (LeCun 1998, §III.B) neither
    turn digits nor are they drawn anew.
    """

    kind: Literal["affine"]
    rotation: NotNegative  # degrees
    scale: NotNegative  # the logarithm of the factor of size
    squeeze: NotNegative  # the logarithm of the factor by which it is wider and less high
    shear: NotNegative  # horizontal, pixels per pixel
    translation: NotNegative  # pixels, in either direction


class PaperDistortion(Section):
    """The paper's distortions (LeCun 1998, §III.B) as its Fig. 7 shows them: scaled, squeezed, sheared, moved.

    Each value is drawn uniformly: the factor ``shrink`` between its two ends, the others between their negatives and
    themselves.
    """

    kind: Literal["paper"]
    copies: Annotated[int, Field(ge=0)]  # distorted ones of every digit, made once; 0: new ones in each epoch
    shrink: Annotated[tuple[Positive, Positive], Field(strict=False)]  # by so much smaller
    squeeze: Momentum  # 1 ± this: by so much less wide, and higher
    shear: NotNegative  # horizontal, pixels per pixel
    translation: NotNegative  # pixels, in either direction

    @model_validator(mode="after")
    def _ordered(self) -> "PaperDistortion":
        low, high = self.shrink
        if low > high:
            raise ValueError(f"shrink: it starts at {low}, above its end {high}")
        return self


class Initialisation(Section):
    """Weights uniform in ±scale / fan_in**exponent; biases zero, or drawn as the weights of their units."""

    scale: Positive
    exponent: Fraction
    biases: Literal["zero", "random"]


class MeanSquaredError(Section):
    """Sum over classes, mean over samples; the targets of the wrong classes and of the right one."""

    loss: Literal["mse"]
    off: float
    on: float

    @model_validator(mode="after")
    def _distinct(self) -> "MeanSquaredError":
        if not self.off < self.on:
            raise ValueError(f"the target of the right class, on = {self.on}, must exceed off = {self.off}")
        return self


class CrossEntropy(Section):
    """Minus the logarithm of the right class's softmax output, mean over samples."""

    loss: Literal["cross-entropy"]


class MaximumLikelihood(Section):
    """The penalty of the right class alone, mean over samples (LeCun 1998, eq. 8).

    A class's penalty is ``factor`` times the squared distance between F6's state and its code; eq. 7 has the factor 1.
    """

    loss: Literal["mle"]
    factor: Positive


class MaximumAPosteriori(Section):
    """The same, plus ln(e^−j + Σ_classes e^−penalty), which pushes the wrong classes' penalties up (eq. 9)."""

    loss: Literal["map"]
    factor: Positive
    j: float  # the penalty of a class for rubbish


Criterion = MaximumLikelihood | MaximumAPosteriori
"""The losses of distances to codes."""


class SGD(Section):
    """Stochastic gradient descent."""

    kind: Literal["sgd"]
    lr: Positive
    momentum: Momentum
    weight_decay: NotNegative


class Adam(Section):
    """Adam, or AdamW (decoupled weight decay)."""

    kind: Literal["adam", "adamw"]
    lr: Positive
    beta1: Momentum
    beta2: Momentum
    weight_decay: NotNegative


class DiagonalLevenbergMarquardt(Section):
    """Each parameter's steps are lr / (mu + its second derivative), estimated anew before each epoch (levenberg.py)."""

    kind: Literal["diagonal-levenberg-marquardt"]
    lr: Positive
    mu: Positive
    patterns: Annotated[int, Field(ge=1)]  # training digits that the estimate is a mean over
    criterion: Literal["constant", "exact"]  # the loss's second derivative at F6: that of a penalty, or its own


class ConstantSchedule(Section):
    """The same learning rate in every epoch."""

    kind: Literal["constant"]


class CosineSchedule(Section):
    """Half a cosine over the epochs: from lr in the first to lr × final in the last."""

    kind: Literal["cosine"]
    final: Fraction


class Step(Section):
    """Some epochs in which the learning rate is lr × factor."""

    epochs: Annotated[int, Field(ge=1)]
    factor: Positive


class StepSchedule(Section):
    """A learning rate that changes between epochs. The steps may go on beyond the last epoch."""

    kind: Literal["piecewise"]
    steps: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]


class Variant(Section):
    """One recipe: everything that a training depends on, besides its seed and the digits."""

    pixels: Pixels
    distortion: Annotated[NoDistortion | AffineDistortion | PaperDistortion, Field(discriminator="kind")]
    network: AnyNetwork
    initialisation: Initialisation
    objective: Annotated[MeanSquaredError | CrossEntropy | Criterion, Field(discriminator="loss")]
    optimizer: Annotated[SGD | Adam | DiagonalLevenbergMarquardt, Field(discriminator="kind")]
    schedule: Annotated[ConstantSchedule | CosineSchedule | StepSchedule, Field(discriminator="kind")]
    order: Literal["shuffled", "constant"]  # of the digits: a new one in each epoch, or the same random one
    batch_size: Annotated[int, Field(ge=1, le=TRAINING_DIGITS)]
    epochs: Annotated[int, Field(ge=1)]
    train_size: Annotated[int, Field(ge=1, le=TRAINING_DIGITS)]
    validation_size: Annotated[int, Field(ge=0, lt=TRAINING_DIGITS)]

    @model_validator(mode="after")
    def _fits_together(self) -> "Variant":
        if self.train_size + self.validation_size > TRAINING_DIGITS:
            raise ValueError(
                f"train_size + validation_size = {self.train_size + self.validation_size}; "
                f"there are {TRAINING_DIGITS} training digits"
            )
        loss, output = self.objective.loss, self.network.output
        if loss not in LOSSES_OF[output]:
            outputs = (name for name, losses in LOSSES_OF.items() if loss in losses)
            raise ValueError(
                f"objective.loss = {loss!r} does not fit network.output = {output!r}; legal with the loss: "
                f"{', '.join(map(repr, outputs))}; with the output: {', '.join(map(repr, LOSSES_OF[output]))}"
            )
        if isinstance(self.optimizer, DiagonalLevenbergMarquardt) and not (
            isinstance(self.network, Network)
            and self.network.output.endswith("rbf")
            and isinstance(self.network.pooling, TrainablePooling)
        ):
            raise ValueError(
                f"optimizer.kind = {self.optimizer.kind!r} knows the second derivatives of trainable pooling and of "
                "network.output = 'rbf' or 'adaptive-rbf' only"
            )
        if isinstance(self.schedule, StepSchedule):
            planned = sum(step.epochs for step in self.schedule.steps)
            if planned < self.epochs:
                raise ValueError(f"schedule.steps: they are {planned} epochs, and epochs = {self.epochs}")
        if isinstance(self.distortion, PaperDistortion) and self.distortion.copies and self.order != "constant":
            raise ValueError(f"distortion.copies = {self.distortion.copies} have one order; legal: order = 'constant'")
        return self


class Data(Section):
    """The fixed order of the 60,000 training digits from which variants take their sets."""

    order_seed: Annotated[int, Field(ge=0)]


class Blocks(Section):
    """What every command reads of an experiment's params.yaml; its own job checks the rest of it.

    DVC puts names and seeds into commands.
    """

    variants: dict[Name, Variant] = {}
    seeds: tuple[Seed, ...] = Field((), strict=False)
    train: tuple[Name, ...] = Field((), strict=False)
    baselines: tuple[Name, ...] = Field((), strict=False)
    studies: tuple[Name, ...] = Field((), strict=False)


class Params(Section):
    """The whole of params.yaml. What may stand in ``sweep`` is told by its own part: no training depends on it.

    ``variants`` has those of experiments, too, once they are loaded.
    """

    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    compare: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    data: Data
    sweep: dict[str, Any]
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> "Params":
        for name, values in (("seeds", self.seeds), ("compare", self.compare)):
            for value, count in Counter(values).items():
                if count > 1:
                    raise ValueError(f"{name}: {value!r} stands {count} times; each may stand once")
        for variant in self.compare:
            self.variant(variant)
        return self

    def variant(self, name: str) -> Variant:
        """Return the block of a variant. Raises ParamsError for an unknown name."""
        if name not in self.variants:
            raise ParamsError(f"variant {name!r} has no block in a params.yaml; legal: {', '.join(self.variants)}")
        return self.variants[name]

    def runs(self) -> Iterator[tuple[str, int]]:
        """Yield (variant, seed) of every run that is compared."""
        for variant in self.compare:
            for seed in self.seeds:
                yield variant, seed
