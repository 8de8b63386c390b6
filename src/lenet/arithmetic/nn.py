"""Layers for autograd, forward and backward in the arithmetic of exact.py and functions.py.

They are torch.nn's layers as far as a network of digits needs them, and train under any optimizer and any Trainer. A
product layer rounds its operands to grids: the weights, each digit's inputs, and the gradient of the whole batch. The
result of a product is rounded to single precision, then the bias is added: two roundings.
"""

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lenet.arithmetic import exact, functions

INPUTS = 1  # an exponent: pixels of −2 … 2 share a grid
DISTANCES = 3  # squared differences of states within ±1.7159 and codes of ±1 are below 8
UNBOUNDED = 3  # the same of activations that have no bound: those below 8 do


class _Convolution(Function):
    """(x, weights, least, padding, place) → sums of products, without a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, least: int, padding: int, place: str) -> Tensor:
        maps, *kernel = weight.shape
        size = kernel[-1]
        ctx.geometry = x.shape[2:], size, padding
        ctx.place = place
        bits = exact.weight_bits(prod(kernel), maps * size**2)
        matrix = exact.rounded(weight, bits, f"{place}.weight").view(maps, -1).double()
        ctx.e = exact.exponent(float(x.detach().abs().max()) if x.numel() else 0.0, f"{place}'s inputs", least)
        ctx.shared = ctx.e == least  # by all digits: one grid
        x = exact.rounded_each(x, exact.INPUT_BITS, least, f"{place}'s inputs")
        ctx.save_for_backward(x, matrix)
        sums = (matrix @ _windows(x, size, padding)).float()
        side = [length + 2 * padding - size + 1 for length in x.shape[2:]]
        return sums.view(maps, len(x), *side).transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        shape, size, padding = ctx.geometry
        grad = grad.transpose(0, 1).flatten(1)
        bits, input_bits = exact.gradient_bits(grad.shape[1])
        grad = exact.rounded(grad, bits, f"the gradient at {ctx.place}").double()
        if not ctx.shared or input_bits < exact.INPUT_BITS:  # a sum over digits has one grid for all of them
            x = exact.on_grid(x, ctx.e, input_bits)
        dweight = (grad @ _windows(x, size, padding).T).float()
        dx = None
        if ctx.needs_input_grad[0]:
            parts = (matrix.T @ grad).view(matrix.shape[1], len(x), -1).transpose(0, 1)
            dx = F.fold(parts, shape, size, padding=padding).float()
        return dx, dweight.view(len(matrix), -1, size, size), None, None, None


def _windows(x: Tensor, size: int, padding: int) -> Tensor:
    """What each place of a kernel sees (c · size², n · places), in double precision: a convolution is one product."""
    if padding:
        x = F.pad(x, [padding] * 4)
    views = x.unfold(2, size, 1).unfold(3, size, 1).permute(1, 4, 5, 0, 2, 3)
    return views.to(torch.float64, memory_format=torch.contiguous_format).view(prod(views.shape[:3]), -1)


class _Shift(Function):
    """(x, bias) → x + bias, the bias one of each map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, place: str) -> Tensor:
        ctx.place = place
        return x + bias.view(-1, *[1] * (x.ndim - 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sizes = prod(grad.shape) // grad.shape[1]
        bits, _ = exact.gradient_bits(sizes)
        rounded = exact.rounded(grad, bits, f"the gradient at {ctx.place}")
        return grad, rounded.double().sum([0, *range(2, grad.ndim)]).float(), None


class Conv2d(nn.Conv2d):
    """A convolution of square kernels.

    Args:
        maps_in: maps that it sees.
        maps_out: maps that it makes.
        size: side of the kernels.
        padding: pixels of zeros around the input.
        bias: whether each map has one.
        least: inputs of magnitudes below 2^least share one grid.

    Attributes:
        place: its name in messages.
    """

    def __init__(
        self, maps_in: int, maps_out: int, size: int, padding: int = 0, bias: bool = True, least: int = UNBOUNDED
    ) -> None:
        super().__init__(maps_in, maps_out, size, padding=padding, bias=bias)
        self.least, self.place = least, "a convolution"

    def forward(self, x: Float[Tensor, "n maps_in h w"]) -> Float[Tensor, "n maps_out h2 w2"]:
        return convolution(x, self.weight, self.bias, self.least, int(self.padding[0]), self.place)


def convolution(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "m c size size"],
    bias: Float[Tensor, " m"] | None,
    least: int,
    padding: int,
    place: str,
) -> Float[Tensor, "n m h2 w2"]:
    """A convolution as Conv2d has it. Raises exact.NotFinite with the name ``place``."""
    sums = _Convolution.apply(x, weight, least, padding, place)
    return sums if bias is None else _Shift.apply(sums, bias, place)


class Linear(nn.Linear):
    """A fully connected layer: a convolution over one pixel. ``least`` and ``place`` as in Conv2d."""

    def __init__(self, inputs: int, outputs: int, least: int = UNBOUNDED) -> None:
        super().__init__(inputs, outputs)
        self.least, self.place = least, "a layer"

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        weight = self.weight[:, :, None, None]
        return convolution(x[:, :, None, None], weight, self.bias, self.least, 0, self.place)[:, :, 0, 0]


class _Tanh(Function):
    """outer · tanh(inner · x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: float, outer: float) -> Tensor:
        value = functions.tanh_(x * inner)
        ctx.save_for_backward(value)
        ctx.factor = outer * inner
        return value * outer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        return (grad * ctx.factor) * (1.0 - value * value), None, None


class _Logistic(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        value = functions.logistic(x)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return grad * ((1.0 - value) * value)


def tanh(x: Float[Tensor, "*shape"], inner: float = 1.0, outer: float = 1.0) -> Float[Tensor, "*shape"]:
    """The hyperbolic tangent of inner · x, times outer."""
    return _Tanh.apply(x, inner, outer)


def logistic(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logistic function 1 / (1 + e^−x)."""
    return _Logistic.apply(x)


class _FieldSums(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pairs = x[:, :, 0::2] + x[:, :, 1::2]
        return pairs[..., 0::2] + pairs[..., 1::2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.repeat_interleave(2, 2).repeat_interleave(2, 3)


class _FieldMaxima(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pairs = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        largest = torch.maximum(pairs[..., 0::2], pairs[..., 1::2])
        ctx.save_for_backward(x, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        dx = torch.zeros_like(x)
        places = [(slice(None), slice(None), slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
        for place, its in zip(places, first_largest([x[place] for place in places], largest), strict=True):
            dx[place] = grad * its
        return dx


def first_largest(pixels: list[Tensor], largest: Tensor) -> list[Tensor]:
    """Of the pixels of fields, which is the first that is the largest: 1, and 0 for the others."""
    left = torch.ones_like(largest, dtype=torch.bool)
    found = []
    for each in pixels:
        found.append((each == largest) & left)
        left &= ~found[-1]
    return found


def field_sums(x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
    """Sums of 2×2 pixels: of the upper and the lower one, then of the left pair and the right. Sides are even."""
    return _FieldSums.apply(x)


class AveragePool(nn.Module):
    """The means of 2×2 pixels."""

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        return field_sums(x) * 0.25


class MaxPool(nn.Module):
    """The largest of 2×2 pixels; of equal ones the first receives its gradient.

    An odd last line or column is left out.
    """

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        return _FieldMaxima.apply(even)


class _Scale(Function):
    """(x, factors, biases) → x · factor + bias, one of each for a map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, bias: Tensor, place: str) -> Tensor:
        ctx.save_for_backward(x, factor)
        ctx.place = f"the gradient at {place}"
        return x * factor[:, None, None] + bias[:, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factor = ctx.saved_tensors
        over = 0, 2, 3
        dfactor = exact.total(grad * x, over, ctx.place).float()
        return grad * factor[:, None, None], dfactor, exact.total(grad, over, ctx.place).float(), None


def scale(
    x: Float[Tensor, "n maps h w"], factor: Float[Tensor, " maps"], bias: Float[Tensor, " maps"], place: str
) -> Float[Tensor, "n maps h w"]:
    """Each map times its factor, plus its bias."""
    return _Scale.apply(x, factor, bias, place)


class _Distances(Function):
    """(x, codes) → squared distances."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, place: str) -> Tensor:
        apart = x[:, None] - codes
        ctx.save_for_backward(apart)
        ctx.place = place
        squares = exact.rounded_each(apart * apart, exact.GRID_BITS, DISTANCES, place)
        return squares.double().sum(2).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (apart,) = ctx.saved_tensors
        pulls = exact.rounded(
            (grad * 2.0)[:, :, None] * apart, exact.GRID_BITS, f"the gradient at {ctx.place}"
        ).double()
        dcodes = (0.0 - pulls.sum(0)).float() if ctx.needs_input_grad[1] else None
        return pulls.sum(1).float(), dcodes, None


def distances(x: Float[Tensor, "n k"], codes: Float[Tensor, "classes k"], place: str) -> Float[Tensor, "n classes"]:
    """The squared distances between states and codes."""
    return _Distances.apply(x, codes, place)


class _Normalisation(Function):
    """(x, weight, bias, mean, variance) of training: also writes the batch's own mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, place: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        over = 0, 2, 3
        mean = exact.divided(exact.total(x, over, place), count)
        apart = x - mean[:, None, None]
        variance = exact.divided(exact.total(apart * apart, over, place), count)
        scale = torch.div(torch.ones_like(variance), functions.sqrt(variance + eps))
        normal = apart * scale[:, None, None]
        ctx.save_for_backward(normal, scale * weight)
        ctx.weight, ctx.count, ctx.place = weight, count, f"the gradient at {place}"
        ctx.mark_non_differentiable(mean, variance)
        return normal * weight[:, None, None] + bias[:, None, None], mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normal, scale = ctx.saved_tensors
        over = 0, 2, 3
        dbias = exact.total(grad, over, ctx.place)
        dweight = exact.total(grad * normal, over, ctx.place)
        means, products = exact.divided(dbias, ctx.count), exact.divided(dweight, ctx.count)
        dx = grad - means[:, None, None] - normal * products[:, None, None]
        return dx * scale[:, None, None], dweight.float(), dbias.float(), None, None


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015) as torch.nn's: of maps over a batch, or in use by running means.

    Attributes:
        place: its name in messages.
    """

    def __init__(self, maps: int) -> None:
        super().__init__(maps)
        self.place = "a normalisation"

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h w"]:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if not self.training:
            scale = self.weight / functions.sqrt(self.running_var + self.eps)
            return (x - self.running_mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        y, mean, variance = _Normalisation.apply(x, self.weight, self.bias, self.eps, self.place)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            unbiased = variance * (count / (count - 1))
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.mul_(1 - self.momentum).add_(new * self.momentum)
        return y


class _MapMeans(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, place: str) -> Tensor:
        ctx.side = x.shape[2:]
        return exact.divided(exact.total_each(x, (2, 3), place), prod(ctx.side))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (grad * (1 / prod(ctx.side)))[:, :, None, None].expand(*grad.shape, *ctx.side), None


class MapMeans(nn.Module):
    """The mean of each map: global average pooling (Lin et al. 2014)."""

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps"]:
        return _MapMeans.apply(x, "the maps' means")
