"""The bits of lenet5.py, computed fast on one core: outputs and, by formulas derived by hand, gradients.

Several networks of one kind can be computed side by side, each with its own weights and its own digits: each gets the
bits that it gets alone. All buffers are made once for a batch size; kernels/ has the loops over them.

Sums are exact (arithmetic/exact.py), so that it does not matter in which order they are made. What is left to keep
equal to lenet5.py are the roundings: which numbers go to which grid, and each step between products.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from lenet.arithmetic import exact
from lenet.arithmetic.nn import DISTANCES, MaxPool
from lenet.kernels import layers as kernels
from lenet.kernels import steps
from lenet.kernels.layers import TAPS
from lenet.kernels.steps import f32
from lenet.networks.lenet5 import LeNet5, RadialBasis, SparseConv, Subsampling

STRETCH = 512  # numbers of a convolution at a time, at least
LINE = 64  # bytes of a cache's line
LIMIT = f32(2.0**exact.LARGEST)


class Flat:
    """All parameters of networks as one matrix, a row for each network, of which the networks' own become views.

    Attributes:
        parameters: each network's.
        matrix: all of them [network, all]. It is a parameter, too.
        gradient: its gradient.
        gradients: for each network, views of the matrix's gradient in the shapes of its parameters.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.parameters = [list(network.parameters()) for network in networks]
        self.shapes = [parameter.shape for parameter in self.parameters[0]]
        row = _row(self.parameters[0]) if len(networks) == 1 else None
        if row is None:
            row = torch.stack([torch.cat([p.detach().flatten() for p in its]) for its in self.parameters])
        self.matrix = nn.Parameter(row.view(len(networks), -1))
        self.gradient = self.matrix.grad = torch.zeros_like(self.matrix)
        self.gradients = [self.views(row) for row in self.gradient]
        for its, row in zip(self.parameters, self.matrix.detach(), strict=True):
            for parameter, view in zip(its, self.views(row), strict=True):
                parameter.data = view

    def views(self, row: Tensor) -> list[Tensor]:
        """A row's parts in the shapes of the parameters."""
        parts = row.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def give(self) -> None:
        """Make the gradients the parameters', where they are not."""
        self.matrix.grad = self.gradient
        for parameter, gradient in self.pairs():
            if parameter.grad is not gradient:
                parameter.grad = gradient

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every parameter of every network, and where its gradient goes."""
        for its, gradients in zip(self.parameters, self.gradients, strict=True):
            yield from zip(its, gradients, strict=True)


def _row(parameters: Sequence[Tensor]) -> Tensor | None:
    """Parameters as one vector without a copy, if they lie in memory one after another; else None."""
    first, *_ = flat = [parameter.detach() for parameter in parameters]
    ends = accumulate((part.numel() for part in flat), initial=first.storage_offset())
    storage = first.untyped_storage().data_ptr()
    for part, start in zip(flat, ends, strict=False):
        if part.untyped_storage().data_ptr() != storage or part.storage_offset() != start or not part.is_contiguous():
            return None
    return first.as_strided((sum(part.numel() for part in flat),), (1,))


class Squash(NamedTuple):
    """The squashing function outer · f(inner · a).

    Attributes:
        kind: steps.py's number of f.
        bounded: whether f's values lie within ±1.
    """

    kind: int
    bounded: bool
    inner: f32 = f32(1)
    outer: f32 = f32(1)

    @property
    def factor(self) -> f32:
        """What gradients are multiplied by before they are pulled through f."""
        return f32(float(self.inner) * float(self.outer))


SQUASHES = {
    "sigmoid": Squash(steps.LOGISTIC, True),
    "scaled-tanh": Squash(steps.TANH, True, f32(2 / 3), f32(1.7159)),
    "tanh": Squash(steps.TANH, True),
    "relu": Squash(steps.RELU, False),
}
LINEAR = Squash(steps.LINEAR, False)


class Passes:
    """Forward and backward pass of networks of one kind for batches of one size, in buffers.

    Args:
        networks: their parameters become views of one matrix, and have to stay where they are in memory.
        n: digits in a batch.
        flat: that matrix, if there is one already.

    Attributes:
        flat: the parameters and, after ``backward``, their gradients.
        inputs: each network's batch (networks, n, 1, 32, 32), to be filled before ``forward``.
    """

    def __init__(self, networks: Sequence[LeNet5], n: int, flat: Flat | None = None) -> None:
        network, squash = networks[0], SQUASHES[networks[0].activation]
        self.flat = flat or Flat(networks)
        weights = self.weights = _Weights(self.flat, networks)
        x = Values(len(networks), 1, 32 * 32, n)
        self.inputs = torch.from_numpy(x.value).view(-1, 1, 32, 32, n).permute(0, 4, 1, 2, 3)
        self.layers: list[_Convolution | _Subsampling | _Full | _RadialBasis] = []
        for layer, pooling in ((network.C1, network.S2), (network.C3, network.S4)):
            self.layers.append(_Convolution(weights, layer, pooling, squash, x))
            if isinstance(pooling, Subsampling):
                self.layers.append(_Subsampling(weights, pooling, squash, self.layers[-1].y))
            x = self.layers[-1].y
        x = x.flat()
        for full, last in ((network.C5, False), (network.F6, False), (network.output, not network.squash_output)):
            if isinstance(full, RadialBasis):
                self.layers.append(_RadialBasis(weights, full, x, networks))
            else:
                self.layers.append(_Full(weights, full, LINEAR if last else squash, x))
            x = self.layers[-1].y
        self.last = x

    def forward(self) -> Float[Tensor, "networks n 10"]:
        """The outputs for ``inputs``. Raises exact.NotFinite where numbers have no place on a grid."""
        self.weights.take()
        with np.errstate(all="ignore"):  # what is not finite is found where it is put on a grid
            for layer in self.layers:
                layer.forward()
        self.weights.forward.check()
        return torch.from_numpy((self.last.value * self.last.outer).swapaxes(1, 2).copy())

    def backward(self, dscores: Float[Tensor, "networks n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``.

        Raises exact.NotFinite where numbers have no place on a grid.
        """
        np.copyto(self.last.grad, dscores.numpy().swapaxes(1, 2))
        with np.errstate(all="ignore"):
            for layer in reversed(self.layers):
                layer.backward()
        self.weights.backward.check(backwards=True)
        self.weights.give()


class Magnitudes:
    """The largest magnitudes of what goes to grids: a row for each kind, a column for each network."""

    def __init__(self, networks: int) -> None:
        self.table = np.zeros((16, networks), np.float32)
        self.names: list[str] = []

    def row(self, name: str) -> ndarray:
        """A row of a kind's own."""
        self.names.append(name)
        return self.table[len(self.names) - 1]

    def check(self, backwards: bool = False) -> None:
        """Raise exact.NotFinite for the first, or the last, row in which a magnitude has no place on a grid."""
        fits = self.table < LIMIT
        if not fits.all():
            row, network = np.argwhere(~fits)[-1 if backwards else 0]
            with exact.at(int(network)):
                exact.exponent(float(self.table[row, network]), self.names[row])


class _Weights:
    """The parameters in double precision, those of products on their grids, and the gradients at them."""

    def __init__(self, flat: Flat, networks: Sequence[nn.Module]) -> None:
        self.flat, self.networks = flat, len(networks)
        self.matrix, self.gradient = flat.matrix.detach().numpy(), flat.gradient.numpy()
        sizes = [shape.numel() for shape in flat.shapes]
        self.starts = np.cumsum([0, *sizes])
        self.bits, self.rows = np.zeros((2, len(sizes)), np.int32)
        self.read = np.zeros(len(sizes), bool)
        self.values, self.grads = np.zeros((2, self.networks * sum(sizes)))
        self.places = {parameter: i for i, parameter in enumerate(flat.parameters[0])}
        self.forward, self.backward = Magnitudes(self.networks), Magnitudes(self.networks)

    def plain(self, parameter: Any) -> tuple[ndarray, ndarray]:
        """A parameter of each network as it is, and where the gradients at it go [network, …]."""
        i = self.places[parameter]
        part, shape = slice(*(self.starts[i : i + 2] * self.networks)), (self.networks, *parameter.shape)
        return self.values[part].reshape(shape), self.grads[part].reshape(shape)

    def on_grid(self, layer: Any, bits: int) -> tuple[ndarray, ndarray]:
        """The same of a layer's weights, on their grids."""
        i = self.places[layer.weight]
        self.bits[i], self.rows[i] = bits, len(self.forward.names)
        self.forward.row(f"{layer.place}.weight")
        return self.plain(layer.weight)

    def in_place(self, layer: Any, bits: int) -> tuple[int, ndarray]:
        """Where a layer's weights begin in ``flat``, to be put on their grids as they are read; their magnitudes."""
        self.on_grid(layer, bits)
        i = self.places[layer.weight]
        self.read[i] = True
        return int(self.starts[i]), self.forward.table[self.rows[i]]

    def take(self) -> None:
        """Take the parameters as they are now."""
        its = self.matrix, self.starts, self.bits, self.rows, self.read
        kernels.take_weights(*its, self.values, self.forward.table)

    def give(self) -> None:
        """Gradients to the parameters."""
        kernels.give_gradients(self.grads, self.starts, self.read, self.gradient)
        self.flat.give()


def _zeros(*shape: int) -> ndarray:
    """Zeros in double precision that begin where a line of the cache does."""
    numbers = prod(shape)
    memory = np.zeros(numbers + LINE // 8)
    start = -memory.ctypes.data % LINE // 8
    return memory[start : start + numbers].reshape(shape)


class Values:
    """What a layer gives: ``value``, to be multiplied by ``outer``, and the loss's gradient at the product.

    Both are [network, map, pixel, digit], or [network, unit, digit].
    """

    def __init__(self, *shape: int, squash: Squash = LINEAR) -> None:
        self.value, self.grad = np.zeros(shape, np.float32), _zeros(*shape)
        self.outer, self.bounded = squash.outer, squash.bounded

    def flat(self) -> "Values":
        """The same of units, the pixels of maps."""
        other = copy(self)
        shape = len(self.value), -1, self.value.shape[-1]
        other.value, other.grad = self.value.reshape(shape), self.grad.reshape(shape)
        return other


class _Operand:
    """The inputs of a product layer on grids: each digit's own and, for sums over digits, one of all."""

    def __init__(self, weights: _Weights, x: Values, layer: Any, bits: int, more: int = 0) -> None:
        self.x, self.least, self.bits = x.flat(), np.int32(layer.least), np.int32(bits)
        networks, units, digits = self.x.value.shape
        self.values = _zeros(networks, units * digits + more)
        self.magnitudes = weights.forward.row(f"{layer.place}'s inputs")

    def take(self) -> None:
        """The inputs, each digit's on its own grid."""
        x = self.x
        kernels.take_inputs(x.value, x.outer, x.bounded, self.least, self.values, self.magnitudes)

    def take_together(self) -> None:
        """The same on one grid."""
        if not self.x.bounded or self.bits < exact.INPUT_BITS:
            kernels.share_grid(self.values, self.magnitudes, self.least, self.bits)


class _Convolution:
    """C1 with S2, or C3 with S4: a convolution, squashed, its 2×2 pixels pooled."""

    def __init__(self, weights: _Weights, layer: Any, pooling: nn.Module, squash: Squash, x: Values) -> None:
        networks, seen, pixels, n = x.value.shape
        side = isqrt(pixels)
        maps, lines, self.half = len(layer.bias), side - TAPS + 1, (side - TAPS + 1) // 2
        self.n, self.line, self.used, self.squash, self.x = n, side * n, lines * n, squash, x
        together = -(-STRETCH // self.line)  # lines
        self.apart = together * self.line
        self.length = self.used if together == 1 else self.apart
        weight, dweight = weights.on_grid(layer, exact.weight_bits(TAPS**2 * seen, TAPS**2 * maps))
        self.weight, self.dweight = (each.reshape(networks, -1, TAPS, TAPS) for each in (weight, dweight))
        self.bias, self.dbias = weights.plain(layer.bias)
        bits, input_bits = exact.gradient_bits(n * lines**2)
        self.operand = _Operand(weights, x, layer, input_bits, more=(TAPS - 1) * n)
        self.pairs = _Pairs(layer.table if isinstance(layer, SparseConv) else [range(seen)] * maps, seen)
        self.value, self.dvalue = np.zeros((2, networks, maps, lines * self.line), np.float32)
        self.bits, self.magnitudes = np.int32(bits), weights.backward.row(f"the gradient at {layer.place}")
        self.d = _zeros(networks, maps, (lines + 2 * TAPS - 1) * self.line)
        self.dx = x.grad.reshape(networks, seen, -1) if seen > 1 else None
        self.by_max, self.share = isinstance(pooling, MaxPool), f32(getattr(pooling, "share", 0.25))
        self.y = Values(networks, maps, self.half**2, n, squash=Squash(squash.kind, squash.bounded))

    def forward(self) -> None:
        self.operand.take()
        kernels.convolve(
            self.operand.values, self.weight, self.bias, self.pairs.ends, self.pairs.seen, self.apart, self.length,
            self.line, self.n, self.squash.kind, self.squash.inner, self.value,
        )  # fmt: skip
        kernels.pool(self.value, self.squash.outer, self.by_max, self.share, self.line, self.half, self.y.value)

    def backward(self) -> None:
        kernels.spread(
            self.y.grad, self.value, self.squash.outer, self.by_max, self.share, self.line, self.half, self.dvalue
        )
        kernels.pull_convolution(
            self.dvalue, self.value, self.apart, self.length, self.line, self.squash.kind, self.squash.factor,
            self.bits, self.d, self.dbias, self.magnitudes,
        )  # fmt: skip
        self.operand.take_together()
        pairs = self.pairs
        kernels.convolution_weights(
            self.d, self.operand.values, pairs.ends, pairs.seen, self.apart, self.length, self.line, self.n,
            self.dweight,
        )  # fmt: skip
        if self.dx is not None:
            kernels.convolution_inputs(
                self.d, self.weight, pairs.seers, pairs.order, pairs.made, self.apart, self.line, self.n, self.dx
            )


class _Pairs:
    """The connected pairs of maps: by the map that they make, as weights are ordered, and by the map that they see."""

    def __init__(self, table: Sequence[Sequence[int]], maps: int) -> None:
        self.seen = np.array([i for seen in table for i in seen])
        self.made = np.repeat(np.arange(len(table)), [len(seen) for seen in table])
        self.ends = np.cumsum([0, *map(len, table)])
        self.order = np.argsort(self.seen, kind="stable")
        self.seers = np.cumsum([0, *np.bincount(self.seen, minlength=maps)])


class _Subsampling:
    """Trainable subsampling after its mean or sum: times a coefficient, plus a bias, squashed."""

    def __init__(self, weights: _Weights, layer: Subsampling, squash: Squash, x: Values) -> None:
        self.squash, self.y = squash, Values(*x.value.shape, squash=squash)
        (self.weight, self.dweight), (self.bias, self.dbias) = weights.plain(layer.weight), weights.plain(layer.bias)
        shape = *x.value.shape[:2], -1
        self.x, self.dx, self.value, self.dy = (
            each.reshape(shape) for each in (x.value, x.grad, self.y.value, self.y.grad)
        )
        self.scratch, self.products = np.zeros((2, *self.x.shape), np.float32)
        what = f"the gradient at {layer.place}"
        self.magnitudes, self.product_magnitudes = weights.backward.row(what), weights.backward.row(what)

    def forward(self) -> None:
        kernels.scale(self.x, self.weight, self.bias, self.squash.kind, self.squash.inner, self.value)

    def backward(self) -> None:
        kernels.pull_scale(
            self.dy, self.x, self.value, self.weight, self.squash.kind, self.squash.factor, self.scratch, self.products,
            self.dx, self.dweight, self.dbias, self.magnitudes, self.product_magnitudes,
        )  # fmt: skip


class _Full:
    """A fully connected layer, squashed."""

    def __init__(self, weights: _Weights, layer: Any, squash: Squash, x: Values) -> None:
        networks, k, n = x.value.shape
        m = len(layer.weight)
        self.squash, self.x, self.y = squash, x, Values(networks, m, n, squash=squash)
        self.weights, self.weight_bits = weights, exact.weight_bits(k, m)
        if n == 1:
            self.start, self.largest = weights.in_place(layer, self.weight_bits)
        else:
            self.weight, self.dweight = weights.on_grid(layer, self.weight_bits)
        self.bias, self.dbias = weights.plain(layer.bias)
        bits, input_bits = exact.gradient_bits(n)
        self.operand = _Operand(weights, x, layer, input_bits)
        self.inputs = self.operand.values.reshape(networks, k, n)
        self.bits, self.magnitudes = np.int32(bits), weights.backward.row(f"the gradient at {layer.place}")
        self.sums, self.d = np.zeros((2, networks, m, n))
        self.scratch = np.zeros_like(self.y.value)

    def forward(self) -> None:
        self.operand.take()
        if self.inputs.shape[2] == 1:
            kernels.multiply_one(
                self.weights.matrix, self.start, self.largest, self.weight_bits, self.operand.values, self.sums
            )
        else:
            np.matmul(self.weight, self.inputs, out=self.sums)
        kernels.shift(self.sums, self.bias, self.squash.kind, self.squash.inner, self.y.value)

    def backward(self) -> None:
        kernels.pull_full(
            self.y.grad, self.y.value, self.squash.kind, self.squash.factor, self.bits, self.scratch, self.d,
            self.dbias, self.magnitudes,
        )  # fmt: skip
        self.operand.take_together()
        if self.inputs.shape[2] == 1:
            kernels.multiply_one_back(
                self.d, self.weights.matrix, self.weights.gradient, self.start, self.largest, self.weight_bits,
                self.operand.values, self.x.grad,
            )  # fmt: skip
        else:
            np.matmul(self.d, self.inputs.swapaxes(1, 2), out=self.dweight)
            np.matmul(self.weight.swapaxes(1, 2), self.d, out=self.x.grad)


class _RadialBasis:
    """Squared distances to codes."""

    def __init__(self, weights: _Weights, layer: RadialBasis, x: Values, networks: Sequence[LeNet5]) -> None:
        self.x, self.y = x, Values(len(networks), len(layer.weight), x.value.shape[-1])
        if isinstance(layer.weight, nn.Parameter):
            self.codes, self.dcodes = weights.plain(layer.weight)
        else:
            self.codes = torch.stack([network.output.weight for network in networks]).double().numpy()
            self.dcodes = np.zeros_like(self.codes)
        self.magnitudes = weights.forward.row(layer.place)
        self.gradient_magnitudes = weights.backward.row(f"the gradient at {layer.place}")

    def forward(self) -> None:
        x, y = self.x, self.y
        kernels.distances(x.value, x.outer, self.codes, np.int32(DISTANCES), y.value, self.magnitudes)

    def backward(self) -> None:
        x, y = self.x, self.y
        kernels.pull_distances(y.grad, x.value, x.outer, self.codes, x.grad, self.dcodes, self.gradient_magnitudes)
