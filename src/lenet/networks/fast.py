"""The bits of lenet5.py, computed fast on one core: outputs and, by formulas derived by hand, gradients.

Maps lie in memory as [line, map, column, digit]. With the digits innermost, shifting a window, adding the pixels of a
2×2 field and squashing run over long contiguous stretches, and a convolution is one matrix product per output line or
two, whose operand is a view on overlapping lines. Lines are computed a block at a time, from the product to the
pooling, so that a block stays in the cache. All buffers and views are made once for a batch size. They are NumPy's: its
calls cost a third of torch's, and its library multiplies these matrices faster on some processors.

Sums are exact (arithmetic/exact.py), so that it does not matter in which order a product of matrices adds. What is left
to keep equal to lenet5.py are the roundings: which numbers go to which grid, and each step between products.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from torch import Tensor, nn

from lenet.arithmetic import exact, functions
from lenet.arithmetic.nn import DISTANCES, INPUTS, MaxPool, first_largest
from lenet.networks.lenet5 import LeNet5, RadialBasis, SparseConv, Subsampling
from lenet.runtime.errors import InputError

SIZE = 5  # of the kernels
BLOCK = 65536  # numbers of a convolution computed at a time, about: they stay in the cache from product to pooling
SMALL = 10**6  # multiplications of a product of matrices that OpenBLAS takes without copying them, on some processors


class Flat:
    """All parameters of a network as one vector, of which the network's own become views.

    Attributes:
        parameters: the network's.
        vector: all of them.
        gradients: views of the vector's gradient, in the shapes of the parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = list(network.parameters())
        self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in self.parameters]))
        self.vector.grad = torch.zeros_like(self.vector)
        self.gradients = self.views(self.vector.grad)
        for parameter, its in zip(self.parameters, self.views(self.vector.detach()), strict=True):
            parameter.data = its

    def views(self, flat: Tensor) -> list[Tensor]:
        """A vector's parts in the shapes of the parameters."""
        parts = flat.split([p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    @property
    def holds(self) -> bool:
        """Whether the parameters still are views of the vector."""
        places = (view.data_ptr() for view in self.views(self.vector.detach()))
        return all(p.data_ptr() == place for p, place in zip(self.parameters, places, strict=True))

    def give(self) -> None:
        """Make the gradients the parameters'."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient


_FLAT: WeakKeyDictionary[nn.Module, Flat] = WeakKeyDictionary()


def flat(network: nn.Module) -> Flat:
    """A network's parameters as one vector; the same one while they stay where they are."""
    if network not in _FLAT or not _FLAT[network].holds:
        _FLAT[network] = Flat(network)
    return _FLAT[network]


@cache
def _number(value: float) -> ndarray:
    """A single-precision array of no dimension: it costs less than a number of Python's."""
    return torch.tensor(value).numpy()


@cache
def _grid(e: int, bits: int) -> ndarray:
    """exact.constant as an array."""
    return exact.constant(e, bits).numpy()


@dataclass(frozen=True)
class Squash:
    """The squashing function outer · f(inner · a).

    Attributes:
        f: in place, of a tensor.
        pull: from gradients at f's values, or what broadcasts to them, and f's values, write those at its arguments.
        bounded: whether f's values lie within ±1.
    """

    f: Callable[[Tensor], Tensor]
    pull: Callable[[ndarray, ndarray, ndarray], Any]
    bounded: bool
    inner: float = 1.0
    outer: float = 1.0

    @property
    def factor(self) -> float:
        """What gradients are multiplied by before they are pulled."""
        return self.inner * self.outer

    def apply(self, value: ndarray, out: ndarray) -> None:
        """Put f(inner · a) in the place of a and, with a factor ``outer``, the product into ``out``."""
        if self.inner != 1:
            np.multiply(value, _number(self.inner), out=value)
        self.f(torch.from_numpy(value))
        if self.outer != 1:
            np.multiply(value, _number(self.outer), out=out)

    def scaled_(self, grad: ndarray, share: float = 1.0) -> ndarray:
        """``grad`` times the factor and a power of two, in place."""
        if self.factor * share != 1:
            np.multiply(grad, _number(self.factor * share), out=grad)
        return grad


def _pull_tanh(grad: ndarray, value: ndarray, out: ndarray) -> None:
    np.multiply(value, value, out=out)
    np.subtract(_number(1.0), out, out=out)
    np.multiply(out, grad, out=out)


def _pull_logistic(grad: ndarray, value: ndarray, out: ndarray) -> None:
    np.subtract(_number(1.0), value, out=out)
    np.multiply(out, value, out=out)
    np.multiply(out, grad, out=out)


def _pull_relu(grad: ndarray, value: ndarray, out: ndarray) -> None:
    at, its, to = (torch.from_numpy(each) for each in (grad, value, out))
    torch.ops.aten.threshold_backward.grad_input(at.expand_as(its), its, 0, grad_input=to)


SQUASHES = {
    "sigmoid": Squash(functions.logistic_, _pull_logistic, True),
    "scaled-tanh": Squash(functions.tanh_, _pull_tanh, True, 2 / 3, 1.7159),
    "tanh": Squash(functions.tanh_, _pull_tanh, True),
    "relu": Squash(Tensor.relu_, _pull_relu, False),
}
LINEAR = Squash(lambda a: a, lambda grad, value, out: np.copyto(out, grad), False)


class Passes:
    """A network's forward and backward pass for batches of one size, in buffers that the next call overwrites.

    Args:
        network: its parameters become views of one vector, and have to stay where they are in memory.
        n: digits in a batch.

    Attributes:
        inputs: the batch (n, 1, 32, 32), to be filled before ``forward``.
    """

    def __init__(self, network: LeNet5, n: int) -> None:
        squash = SQUASHES[network.activation]
        weights = self.weights = _Weights(network)

        def fields(layer: nn.Module) -> Values:
            if layer is network.C1:
                return Values(14, 6, 14, n)
            return Values(16, 5, 5, n).swapped()  # maps first in memory, as in C5's weights

        x = Values(32, 1, 32, n)
        self.inputs = torch.from_numpy(x.value).permute(3, 1, 0, 2)
        self.layers: list[_Convolution | _Subsampling | _Full | _RadialBasis] = []
        for layer, pooling in ((network.C1, network.S2), (network.C3, network.S4)):
            y, is_first = fields(layer), layer is network.C1
            operand = _Operand(x, INPUTS if is_first else layer.least, squash.bounded and not is_first, layer.place)
            self.layers.append(_Convolution(weights, layer, pooling, squash, operand, x, y, needs_dx=not is_first))
            if isinstance(pooling, Subsampling):
                x, y = y, fields(layer)
                self.layers.append(_Subsampling(weights, pooling, squash, x, y))
            x = y
        x = x.swapped().digits_first()
        last = squash if network.squash_output else LINEAR
        for full, its_squash in ((network.C5, squash), (network.F6, squash), (network.output, last)):
            y = Values(n, len(full.weight))
            if isinstance(full, RadialBasis):
                self.layers.append(_RadialBasis(weights, full, x, y))
            else:
                operand = _Operand(x, full.least, squash.bounded, full.place)
                self.layers.append(_Full(weights, full, its_squash, operand, x, y))
            x = y
        self.last = x
        self.scores, self.dscores = torch.from_numpy(x.value), torch.from_numpy(x.grad)

    def forward(self) -> Float[Tensor, "n 10"]:
        """The outputs for ``inputs``. Raises exact.NotFinite where numbers have no place on a grid."""
        with np.errstate(all="ignore"):  # what is not finite is found where it is put on a grid
            self.weights.take()
            for layer in self.layers:
                layer.forward()
        return self.scores.clone()

    def backward(self, dscores: Float[Tensor, "n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``.

        Raises exact.NotFinite where numbers have no place on a grid.
        """
        self.dscores.copy_(dscores)
        with np.errstate(all="ignore"):
            for layer in reversed(self.layers):
                layer.backward()
        self.weights.give()


class _Weights:
    """A network's parameters in one vector, those of products on their grids in double precision, and gradients."""

    def __init__(self, network: LeNet5) -> None:
        self.flat = flat(network)
        self.values = self.flat.vector.detach().numpy()
        sizes = [parameter.numel() for parameter in self.flat.parameters]
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.magnitudes, self.rounded = np.zeros((2, len(self.values)), np.float32)
        self.constants = torch.zeros(len(self.values))
        self.doubles, self.ddoubles = torch.zeros(2, len(self.values), dtype=torch.float64).unbind()
        self.places = {parameter: i for i, parameter in enumerate(self.flat.parameters)}
        self.matrices: list[tuple[int, str, int, Tensor]] = []  # parameter's number, name, bits, constants
        self.exponents: list[int] = []

    def _part(self, flat: Tensor, parameter: Any) -> Tensor:
        return self.flat.views(flat)[self.places[parameter]]

    def matrix(self, layer: Any, bits: int) -> tuple[ndarray, ndarray]:
        """A layer's weights on their grid, and where the gradients at them go. Both in double precision."""
        constants = self._part(self.constants, layer.weight)
        self.matrices.append((self.places[layer.weight], f"{layer.place}.weight", bits, constants))
        return self._part(self.doubles, layer.weight).numpy(), self._part(self.ddoubles, layer.weight).numpy()

    def plain(self, parameter: Any) -> tuple[ndarray, ndarray]:
        """A parameter as it is, and where the gradients at it go, in double precision."""
        return parameter.detach().numpy(), self._part(self.ddoubles, parameter).numpy()

    def take(self) -> None:
        """Put the weights on their grids."""
        np.abs(self.values, out=self.magnitudes)
        largest = np.maximum.reduceat(self.magnitudes, self.starts).tolist()
        exponents = [exact.exponent(largest[i], what) for i, what, _, _ in self.matrices]
        if exponents != self.exponents:
            self.exponents = exponents
            for e, (_, _, bits, its) in zip(exponents, self.matrices, strict=True):
                its.fill_(exact.constant(e, bits))
        constants = self.constants.numpy()
        np.add(self.values, constants, out=self.rounded)
        np.subtract(self.rounded, constants, out=self.rounded)
        np.copyto(self.doubles.numpy(), self.rounded)

    def give(self) -> None:
        """Gradients to the parameters."""
        assert self.flat.vector.grad is not None
        self.flat.vector.grad.copy_(self.ddoubles)
        self.flat.give()


class Values:
    """A buffer for a layer's values and one for the loss's gradient at them."""

    def __init__(self, *shape: int) -> None:
        self.value, self.grad = np.zeros((2, *shape), np.float32)

    def _viewed(self, view: Callable[[ndarray], ndarray]) -> "Values":
        other = copy(self)
        other.value, other.grad = view(self.value), view(self.grad)
        return other

    def swapped(self) -> "Values":
        """The first two dimensions the other way round."""
        return self._viewed(lambda x: x.swapaxes(0, 1))

    def digits_first(self) -> "Values":
        """The digits first, everything else in one dimension."""
        return self._viewed(lambda x: _viewed(x, -1, x.shape[-1]).T)


class _Operand:
    """The inputs of a product layer on their grids: of each digit, and for sums over digits of all of them."""

    def __init__(self, x: Values, least: int, bounded: bool, place: str) -> None:
        self.x, self.least, self.bounded, self.what = x.value, least, bounded, f"{place}'s inputs"
        self.rounded = np.empty_like(self.x)
        self.others = (1,) if self.x.ndim == 2 else (0, 1, 2)  # dimensions than the digits'
        self.e = least

    def take(self) -> ndarray:
        """The inputs, each digit's on its own grid."""
        if self.bounded:
            return _on_grid(self.x, _grid(self.e, exact.INPUT_BITS), self.rounded)
        self.e = _round_each(self.x, exact.INPUT_BITS, self.least, self.others, self.what, self.rounded)
        return self.rounded

    def take_together(self, bits: int) -> ndarray | None:
        """The same on one grid of so many bits; None if that is what ``take`` returned."""
        if self.e == self.least and bits == exact.INPUT_BITS:
            return None
        return _on_grid(self.rounded, _grid(self.e, bits), self.rounded)


def _on_grid(x: ndarray, constant: ndarray, out: ndarray) -> ndarray:
    """Numbers rounded by the constants of their grids."""
    return np.subtract(np.add(x, constant, out=out), constant, out=out)


def _round_each(x: ndarray, bits: int, least: int, others: tuple[int, ...], what: str, out: ndarray) -> int:
    """exact.rounded_each: ``others`` are the dimensions of one digit. Returns the exponent of all together."""
    e = exact.exponent(_largest(x), what, least)
    c = _grid(e, bits)
    if e != least:
        exponents = np.frexp(np.abs(x).max(axis=others, keepdims=True))[1]
        c = np.ldexp(np.float32(1.5), np.maximum(exponents, least) + (23 - bits))
    _on_grid(x, c, out)
    return e


def _round_gradient_(x: ndarray, bits: int, what: str) -> ndarray:
    """Put a gradient on the grid of its largest magnitude, in place."""
    return _on_grid(x, _grid(exact.exponent(_largest(x), what), bits), x)


def _largest(x: ndarray) -> float:
    """The largest magnitude; not a number where one is none."""
    low, high = float(np.minimum.reduce(x, axis=None)), float(np.maximum.reduce(x, axis=None))
    return max(-low, high) if low == low else low


class _Convolution:
    """C1 with S2, or C3 with S4: a convolution, squashed, its 2×2 pixels pooled.

    x [h, c, w, n] → y [h/2 − 2, m, w/2 − 2, n]. Within a line of pixels the even columns stand before the odd
    ones, so that pooling adds whole stretches.
    """

    def __init__(
        self,
        weights: _Weights,
        layer: nn.Module,
        pooling: nn.Module,
        squash: Squash,
        operand: _Operand,
        x: Values,
        y: Values,
        needs_dx: bool,
    ) -> None:
        h, c, w, n = x.value.shape
        m, half = y.value.shape[1:3]
        lines, depth, width = h - SIZE + 1, SIZE * c, 2 * half * n
        self.squash, self.operand, self.what = squash, operand, f"the gradient at {layer.place}"
        weight, dweight = weights.matrix(layer, exact.weight_bits(SIZE * depth, SIZE**2 * m))
        self.weight, self.dweight = _viewed(weight, -1), _viewed(dweight, -1)
        together = 1 if c > 1 else 2  # lines that one product makes: few rows in a matrix are slow
        bias, self.dbias = weights.plain(layer.bias)
        self.bias = bias[:, None]
        self.bits, self.input_bits = exact.gradient_bits(n * lines * 2 * half)

        # the weights in a matrix [(line, map), (kernel line, kernel column, map it sees)], zero where nothing connects
        columns, seen = (SIZE + together - 1) * depth, SIZE * depth
        places = torch.arange(m * seen).view(m, SIZE, SIZE, c).permute(0, 3, 1, 2)
        rows, inner = _connected(layer, places) // seen, _connected(layer, places) % seen
        self.places = [(line * m + rows) * columns + line * depth + inner for line in range(together)]
        self.matrix = np.zeros((together * m, columns))
        # five shifted copies of each line; the operand is windows of five lines
        views = _viewed(sliding_window_view(operand.rounded, SIZE, 2), h, c, half, 2, n, SIZE)
        self.views = views.transpose(0, 5, 1, 3, 2, 4)
        self.shifted = np.zeros(self.views.shape)
        windows = _overlapping(_viewed(self.shifted, h, depth, width), SIZE + together - 1, together)
        value, dvalue = np.empty((2, lines, m, width), np.float32)
        scaled = value if squash.outer == 1 else np.empty_like(value)
        border = SIZE - 1 if needs_dx else 0  # lines of zeros around make the gradient at x a convolution too
        padded = np.zeros((lines + 2 * border, m, width))
        parts = _parts(self.matrix, 2 * half, n)
        self.dmatrices = np.zeros((lines // together, parts, together * m, columns))
        self.dy = _lines(y.grad)

        self.blocks = []
        sums = np.empty((2 * _longest(bounds := _bounds(lines // 2, 2 * m * width)), m, width))
        for start, stop in bounds:  # of pooled lines
            its, products = slice(2 * start, 2 * stop), slice(2 * start // together, 2 * stop // together)
            fresh = slice(its.start + SIZE - 1 if start else 0, its.stop + SIZE - 1)
            its_sums = sums[: 2 * (stop - start)]
            its_dsums = padded[border:][its] if needs_dx else its_sums
            fields = stop - start, 2, m, 2, half * n
            self.blocks.append(
                _Block(
                    views=self.views[fresh],
                    shifted=self.shifted[fresh],
                    windows=_in_parts(windows[products], parts),
                    products=_in_parts(_viewed(its_sums, -1, together * m, width), parts),
                    sums=its_sums,
                    value=value[its],
                    scaled=scaled[its],
                    pool=_pool(pooling, _viewed(scaled[its], *fields), _lines(y.value)[start:stop]),
                    dy=self.dy[start:stop],
                    fields=_viewed(value[its], *fields),
                    dfields=_viewed(dvalue[its], *fields),
                    dvalue=dvalue[its],
                    dsums=its_dsums,
                    dproducts=_in_parts(_viewed(its_dsums, -1, together * m, width), parts),
                    dmatrices=self.dmatrices[products],
                )
            )

        self.needs_dx = needs_dx
        if needs_dx:
            # the matrix turned around [(kernel column, map it sees), (kernel line from the last, map)]
            turned = torch.arange(depth * SIZE * m).view(SIZE, c, SIZE, m).flip(2).permute(3, 1, 2, 0)
            self.turned_places = _connected(layer, turned)
            self.turned = np.zeros((depth, SIZE * m))
            windows, parts = _overlapping(padded, SIZE, 1), _parts(self.turned, 2 * half, n)
            most = _longest(bounds := _bounds(h, depth * width))
            shifted, dx_sums = np.empty((most, depth, width)), np.empty((most, c, w, n))
            self.x_blocks = []
            for start, stop in bounds:
                shares, dx = shifted[: stop - start], dx_sums[: stop - start]
                by_column = _viewed(shares, -1, SIZE, c, 2, half, n).transpose(1, 0, 2, 4, 3, 5)
                dx_parts = [_viewed(dx[:, :, i : i + 2 * half], -1, c, half, 2, n) for i in range(SIZE)]
                operands = _in_parts(windows[start:stop], parts), _in_parts(shares, parts)
                self.x_blocks.append((*operands, [*zip(dx_parts, by_column, strict=True)], dx, x.grad[start:stop]))

    def forward(self) -> None:
        self.operand.take()
        for places in self.places:
            self.matrix.reshape(-1)[places] = self.weight
        for block in self.blocks:
            np.copyto(block.shifted, block.views)
            np.matmul(self.matrix, block.windows, out=block.products)
            np.copyto(block.value, block.sums, casting="same_kind")
            np.add(block.value, self.bias, out=block.value)
            self.squash.apply(block.value, block.scaled)
            block.pool.forward()

    def backward(self) -> None:
        self.squash.scaled_(self.dy, self.blocks[0].pool.share)
        largest = []
        for block in self.blocks:
            self.squash.pull(block.pool.pull(block.dy), block.fields, block.dfields)
            largest.append(_largest(block.dvalue))
        constant = _grid(exact.exponent(float(np.max(largest)), self.what), self.bits)
        if self.operand.take_together(self.input_bits) is not None:
            np.copyto(self.shifted, self.views)
        self.dbias.fill(0.0)
        for block in self.blocks:
            np.copyto(block.dsums, _on_grid(block.dvalue, constant, block.dvalue))
            np.matmul(block.dproducts, block.windows.mT, out=block.dmatrices)
            np.add(self.dbias, np.add.reduce(block.dsums, axis=(0, 2)), out=self.dbias)
        dmatrix = np.add.reduce(self.dmatrices, axis=(0, 1)).reshape(-1)
        np.take(dmatrix, self.places[0], out=self.dweight, mode="clip")
        for places in self.places[1:]:
            np.add(self.dweight, dmatrix[places], out=self.dweight)
        if self.needs_dx:
            self._backward_x()

    def _backward_x(self) -> None:
        self.turned.reshape(-1)[self.turned_places] = self.weight
        for windows, shares, additions, dx_sums, dx in self.x_blocks:
            np.matmul(self.turned, windows, out=shares)
            dx_sums.fill(0.0)
            for part, share in additions:
                np.add(part, share, out=part)
            np.copyto(dx, dx_sums, casting="same_kind")


class _Block(NamedTuple):
    """Some lines of a convolution's output: views of its buffers. All blocks share the memory of the sums."""

    views: ndarray  # of the inputs, those that no earlier block has copied …
    shifted: ndarray  # … to here
    windows: ndarray
    products: ndarray  # the sums as a matrix product makes them
    sums: ndarray
    value: ndarray
    scaled: ndarray
    pool: "_Sum | _Max"
    dy: ndarray
    fields: ndarray  # value by fields of 2×2
    dfields: ndarray
    dvalue: ndarray
    dsums: ndarray
    dproducts: ndarray
    dmatrices: ndarray


def _parts(matrix: ndarray, columns: int, width: int) -> int:
    """In how many equal parts a product with a matrix of so many columns, each of a width, is SMALL."""
    divisors = (parts for parts in range(1, columns + 1) if columns % parts == 0)
    return next((parts for parts in divisors if matrix.size * columns * width <= SMALL * parts), columns)


def _in_parts(x: ndarray, parts: int) -> ndarray:
    """Matrices [h, k, width] as [h, part, k, width / part]."""
    return _viewed(x, *x.shape[:-1], parts, -1).swapaxes(1, 2)


def _bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Where blocks of about BLOCK numbers begin and end among so many parts of a size."""
    blocks = min(count, -(-count * size // BLOCK))
    return [*pairwise(block * count // blocks for block in range(blocks + 1))]


def _longest(bounds: list[tuple[int, int]]) -> int:
    return max(stop - start for start, stop in bounds)


def _viewed(x: ndarray, *shape: int) -> ndarray:
    """An array in another shape, without a copy."""
    view = x.reshape(shape)
    assert np.may_share_memory(view, x)
    return view


def _lines(x: ndarray) -> ndarray:
    """Lines [h, c, w, n] as [h, c, w · n]."""
    return _viewed(x, *x.shape[:2], -1)


def _connected(layer: nn.Module, places: Tensor) -> ndarray:
    """From the places of the weights of all pairs of maps [m, c, 5, 5], those of the weights that the layer holds."""
    return (layer.connected(places) if isinstance(layer, SparseConv) else places).flatten().numpy()


def _overlapping(lines: ndarray, size: int, step: int) -> ndarray:
    """Lines [h, k, width] as windows of ``size`` of them, one every ``step`` lines, without a copy."""
    h, k, width = lines.shape
    shape = (h - size) // step + 1, size * k, width
    return as_strided(lines, shape, (step * lines.strides[0], *lines.strides[1:]), writeable=False)


class _Sum:
    """Fields [line, 2, map, 2, rest] → share · their sums [line, map, rest]."""

    def __init__(self, fields: ndarray, y: ndarray, share: float) -> None:
        self.y, self.share = y, share
        self.upper, self.lower = fields[:, 0], fields[:, 1]
        self.pairs = np.empty(self.upper.shape, np.float32)
        self.left, self.right = self.pairs[:, :, 0], self.pairs[:, :, 1]

    def forward(self) -> None:
        np.add(self.upper, self.lower, out=self.pairs)
        np.add(self.left, self.right, out=self.y)
        if self.share != 1:
            np.multiply(self.y, _number(self.share), out=self.y)

    def pull(self, grad: ndarray) -> ndarray:
        """The gradient at the fields, or a view that broadcasts to it."""
        return grad[:, None, :, None]


class _Max:
    """Fields [line, 2, map, 2, rest] → their largest [line, map, rest]."""

    share = 1.0

    def __init__(self, fields: ndarray, y: ndarray) -> None:
        self.y, self.pulled = y, np.empty_like(fields)
        self.pixels, self.dpixels = (
            [each[:, i, :, j] for i in (0, 1) for j in (0, 1)] for each in (fields, self.pulled)
        )

    def forward(self) -> None:
        np.copyto(self.y, self.pixels[0])
        for pixel in self.pixels[1:]:
            np.maximum(self.y, pixel, out=self.y)

    def pull(self, grad: ndarray) -> ndarray:
        """The gradient at the fields; of equal largest ones the first receives it."""
        found = first_largest([torch.from_numpy(pixel) for pixel in self.pixels], torch.from_numpy(self.y))
        for dpixel, its in zip(self.dpixels, found, strict=True):
            np.multiply(grad, its.numpy(), out=dpixel)
        return self.pulled


def _pool(layer: nn.Module, fields: ndarray, y: ndarray) -> _Sum | _Max:
    """A layer's pooling."""
    if isinstance(layer, Subsampling):
        return _Sum(fields, y, layer.share)
    return _Max(fields, y) if isinstance(layer, MaxPool) else _Sum(fields, y, 0.25)


class _Subsampling:
    """Trainable subsampling after its mean or sum: times a coefficient, plus a bias, squashed. x and y [h, m, w, n]."""

    def __init__(self, weights: _Weights, layer: Subsampling, squash: Squash, x: Values, y: Values) -> None:
        self.squash, self.what = squash, f"the gradient at {layer.place}"
        (weight, self.dweight), (bias, self.dbias) = weights.plain(layer.weight), weights.plain(layer.bias)
        self.weight, self.bias = weight[:, None], bias[:, None]
        self.x, self.dx, self.y, self.dy = map(_lines, (x.value, x.grad, y.value, y.grad))
        self.value, self.d, self.part = np.empty((3, *self.x.shape), np.float32)

    def forward(self) -> None:
        np.multiply(self.x, self.weight, out=self.value)
        np.add(self.value, self.bias, out=self.value)
        self.squash.apply(self.value, self.y)
        if self.squash.outer == 1:
            np.copyto(self.y, self.value)

    def backward(self) -> None:
        self.squash.pull(self.squash.scaled_(self.dy), self.value, self.d)
        np.multiply(self.d, self.weight, out=self.dx)
        for terms, out in ((np.multiply(self.d, self.x, out=self.part), self.dweight), (self.d, self.dbias)):
            _round_gradient_(terms, exact.GRID_BITS, self.what)
            np.add.reduce(terms, axis=(0, 2), dtype=np.float64, out=out)


class _Full:
    """A fully connected layer, squashed. x [n, k] → y [n, m]."""

    def __init__(
        self, weights: _Weights, layer: nn.Linear, squash: Squash, operand: _Operand, x: Values, y: Values
    ) -> None:
        m, k = layer.weight.shape
        n = len(y.value)
        self.squash, self.operand = squash, operand
        self.y, self.dx, self.dy = y.value, x.grad, y.grad
        self.what = f"the gradient at {layer.place}"
        self.weight, self.dweight = weights.matrix(layer, exact.weight_bits(k, m))
        self.bias, self.dbias = weights.plain(layer.bias)
        self.bits, self.input_bits = exact.gradient_bits(n)
        self.value = self.y if squash.outer == 1 else np.empty_like(self.y)
        self.d = np.empty_like(self.y)
        self.x, self.sums, self.dsums, self.dx_sums = (np.zeros((n, size)) for size in (k, m, m, k))

    def forward(self) -> None:
        np.copyto(self.x, self.operand.take())
        np.matmul(self.x, self.weight.T, out=self.sums)
        np.copyto(self.value, self.sums, casting="same_kind")
        np.add(self.value, self.bias, out=self.value)
        self.squash.apply(self.value, self.y)

    def backward(self) -> None:
        self.squash.pull(self.squash.scaled_(self.dy), self.value, self.d)
        np.copyto(self.dsums, _round_gradient_(self.d, self.bits, self.what))
        if (x := self.operand.take_together(self.input_bits)) is not None:
            np.copyto(self.x, x)
        np.matmul(self.dsums.T, self.x, out=self.dweight)
        np.add.reduce(self.dsums, axis=0, out=self.dbias)
        np.matmul(self.dsums, self.weight, out=self.dx_sums)
        np.copyto(self.dx, self.dx_sums, casting="same_kind")


class _RadialBasis:
    """Squared distances to codes. x [n, 84] → y [n, 10]."""

    def __init__(self, weights: _Weights, layer: RadialBasis, x: Values, y: Values) -> None:
        self.x, self.dx, self.y, self.dy = x.value, x.grad, y.value, y.grad
        self.codes, self.what = layer.weight.detach().numpy(), layer.place
        self.dcodes = weights.plain(layer.weight)[1] if isinstance(layer.weight, nn.Parameter) else None
        self.apart, self.part = np.empty((2, len(self.x), *self.codes.shape), np.float32)

    def forward(self) -> None:
        np.subtract(self.x[:, None], self.codes, out=self.apart)
        np.multiply(self.apart, self.apart, out=self.part)
        _round_each(self.part, exact.GRID_BITS, DISTANCES, (1, 2), self.what, self.part)
        np.copyto(self.y, np.add.reduce(self.part, axis=2, dtype=np.float64), casting="same_kind")

    def backward(self) -> None:
        np.multiply(self.dy, _number(2.0), out=self.dy)
        np.multiply(self.apart, self.dy[:, :, None], out=self.part)
        pulls = _round_gradient_(self.part, exact.GRID_BITS, f"the gradient at {self.what}").astype(np.float64)
        np.copyto(self.dx, np.add.reduce(pulls, axis=1), casting="same_kind")
        if self.dcodes is not None:
            np.negative(np.add.reduce(pulls, axis=0), out=self.dcodes)


def check(network: LeNet5, inputs: Float[Tensor, "n 1 32 32"], dscores: Float[Tensor, "n 10"]) -> None:
    """Raise InputError if the passes differ from lenet5.py in a bit of an output or of a gradient.

    Args:
        network: its gradients are left as they come out.
        inputs: some digits.
        dscores: a gradient at their scores.
    """
    passes = Passes(network, len(inputs))
    passes.inputs.copy_(inputs)
    scores = passes.forward()
    passes.backward(dscores)
    ours = [scores, *(gradient.clone() for gradient in passes.weights.flat.gradients)]
    theirs = network(inputs)
    gradients = torch.autograd.grad(theirs, list(network.parameters()), dscores)
    names = ["the outputs", *(f"the gradient at {name}" for name, _ in network.named_parameters())]
    for name, a, b in zip(names, ours, [theirs.detach(), *gradients], strict=True):
        if not torch.equal(a, b):
            raise InputError(f"fast.py computes another network than lenet5.py: {name} differ; change both alike")
