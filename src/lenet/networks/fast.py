"""The bits of lenet5.py, computed fast on one core: outputs and, by formulas derived by hand, gradients.

Maps lie in memory as [line, map, column, digit]. With the digits innermost, shifting a window, adding the pixels of a
2×2 field and squashing run over long contiguous stretches, and a convolution is one matrix product per output line or
two, whose operand is a view on overlapping lines. All buffers and views are made once for a batch size.

Sums are exact (arithmetic/exact.py), so that it does not matter in which order a product of matrices adds. What is left
to keep equal to lenet5.py are the roundings: which numbers go to which grid, and each step between products.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenet.arithmetic import exact, functions
from lenet.arithmetic.nn import DISTANCES, INPUTS, MaxPool, first_largest
from lenet.errors import InputError
from lenet.networks.lenet5 import LeNet5, RadialBasis, SparseConv, Subsampling

SIZE = 5  # of the kernels


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


@dataclass(frozen=True)
class Squash:
    """The squashing function outer · f(inner · a).

    Attributes:
        f: in place.
        pull: from gradients at f's values, or what broadcasts to them, and f's values, write those at its arguments.
        bounded: whether f's values lie within ±1.
    """

    f: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor, Tensor], Tensor]
    bounded: bool
    inner: float = 1.0
    outer: float = 1.0

    @property
    def factor(self) -> float:
        """What gradients are multiplied by before they are pulled."""
        return self.inner * self.outer

    def apply_(self, a: Tensor) -> Tensor:
        """f(inner · a), in place: the values without the factor ``outer``."""
        return self.f(a if self.inner == 1 else a.mul_(self.inner))


def _pull_tanh(grad: Tensor, value: Tensor, out: Tensor) -> Tensor:
    return torch.sub(1.0, torch.mul(value, value, out=out), out=out).mul_(grad)


def _pull_logistic(grad: Tensor, value: Tensor, out: Tensor) -> Tensor:
    return torch.sub(1.0, value, out=out).mul_(value).mul_(grad)


def _pull_relu(grad: Tensor, value: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(grad.expand_as(value), value, 0, grad_input=out)


SQUASHES = {
    "sigmoid": Squash(functions.logistic_, _pull_logistic, True),
    "scaled-tanh": Squash(functions.tanh_, _pull_tanh, True, 2 / 3, 1.7159),
    "tanh": Squash(functions.tanh_, _pull_tanh, True),
    "relu": Squash(Tensor.relu_, _pull_relu, False),
}
LINEAR = Squash(lambda a: a, lambda grad, value, out: out.copy_(grad), False)


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
        self.inputs = x.value.permute(3, 1, 0, 2)
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

    def forward(self) -> Float[Tensor, "n 10"]:
        """The outputs for ``inputs``. Raises exact.NotFinite where numbers have no place on a grid."""
        with torch.no_grad():
            self.weights.take()
            for layer in self.layers:
                layer.forward()
            return self.last.value.clone()

    def backward(self, dscores: Float[Tensor, "n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``.

        Raises exact.NotFinite where numbers have no place on a grid.
        """
        with torch.no_grad():
            self.last.grad.copy_(dscores)
            for layer in reversed(self.layers):
                layer.backward()
            self.weights.give()


class _Weights:
    """A network's parameters in one vector, those of products on their grids in double precision, and gradients."""

    def __init__(self, network: LeNet5) -> None:
        self.flat = flat(network)
        self.values = self.flat.vector.detach()
        self.magnitudes, self.constants, self.rounded = torch.zeros(3, len(self.values)).unbind()
        self.doubles, self.ddoubles = torch.zeros(2, len(self.values), dtype=torch.float64).unbind()
        self.places = {parameter: i for i, parameter in enumerate(self.flat.parameters)}
        self.matrices: list[tuple[nn.Module, int, Tensor, Tensor]] = []  # layer, bits, magnitudes, constants
        self.exponents: list[int] = []

    def _part(self, flat: Tensor, parameter: Any) -> Tensor:
        return self.flat.views(flat)[self.places[parameter]]

    def matrix(self, layer: nn.Module, bits: int) -> tuple[Tensor, Tensor]:
        """A layer's weights on their grid, and where the gradients at them go. Both in double precision."""
        magnitudes, constants = self._part(self.magnitudes, layer.weight), self._part(self.constants, layer.weight)
        self.matrices.append((layer, bits, magnitudes, constants))
        return self._part(self.doubles, layer.weight), self._part(self.ddoubles, layer.weight)

    def plain(self, parameter: Any) -> tuple[Tensor, Tensor]:
        """A parameter as it is, and where the gradients at it go, in double precision."""
        return parameter.detach(), self._part(self.ddoubles, parameter)

    def take(self) -> None:
        """Put the weights on their grids."""
        torch.abs(self.values, out=self.magnitudes)
        largest = torch.stack([magnitudes.max() for _, _, magnitudes, _ in self.matrices]).tolist()
        exponents = [
            exact.exponent(size, f"{layer.place}.weight")
            for size, (layer, *_) in zip(largest, self.matrices, strict=True)
        ]
        if exponents != self.exponents:
            self.exponents = exponents
            for e, (_, bits, _, constants) in zip(exponents, self.matrices, strict=True):
                constants.fill_(exact.constant(e, bits))
        torch.add(self.values, self.constants, out=self.rounded)
        self.doubles.copy_(self.rounded.sub_(self.constants))

    def give(self) -> None:
        """Gradients to the parameters."""
        assert self.flat.vector.grad is not None
        self.flat.vector.grad.copy_(self.ddoubles)
        self.flat.give()


class Values:
    """A buffer for a layer's values and one for the loss's gradient at them."""

    def __init__(self, *shape: int) -> None:
        self.value, self.grad = torch.zeros(2, *shape).unbind()

    def _viewed(self, view: Callable[[Tensor], Tensor]) -> "Values":
        other = copy(self)
        other.value, other.grad = view(self.value), view(self.grad)
        return other

    def swapped(self) -> "Values":
        """The first two dimensions the other way round."""
        return self._viewed(lambda x: x.transpose(0, 1))

    def digits_first(self) -> "Values":
        """The digits first, everything else in one dimension."""
        return self._viewed(lambda x: x.view(-1, x.shape[-1]).T)


class _Operand:
    """The inputs of a product layer on their grids: of each digit, and for sums over digits of all of them."""

    def __init__(self, x: Values, least: int, bounded: bool, place: str) -> None:
        self.x, self.least, self.bounded, self.what = x.value, least, bounded, f"{place}'s inputs"
        self.rounded = torch.empty(self.x.shape)
        self.others = (1,) if self.x.ndim == 2 else (0, 1, 2)  # dimensions than the digits'
        self.e = least

    def take(self) -> Tensor:
        """The inputs, each digit's on its own grid."""
        if not self.bounded:
            self.e = exact.exponent(_largest(self.x), self.what, self.least)
        c = exact.constant(self.e, exact.INPUT_BITS)
        if self.e != self.least:
            largest = self.x.abs().amax(self.others, keepdim=True)
            exponents = torch.frexp(largest).exponent.clamp(min=self.least)
            c = 1.5 * exact.power(exponents + (23 - exact.INPUT_BITS))
        return torch.add(self.x, c, out=self.rounded).sub_(c)

    def take_together(self, bits: int) -> Tensor | None:
        """The same on one grid of so many bits; None if that is what ``take`` returned."""
        if self.e == self.least and bits == exact.INPUT_BITS:
            return None
        c = exact.constant(self.e, bits)
        return self.rounded.add_(c).sub_(c)


def _largest(x: Tensor) -> float:
    """The largest magnitude; not a number where one is none."""
    low, high = (float(end) for end in torch.aminmax(x))
    return max(-low, high) if low == low else low


def _round_gradient_(x: Tensor, bits: int, what: str) -> Tensor:
    """Put a gradient on the grid of its largest magnitude, in place."""
    c = exact.constant(exact.exponent(_largest(x), what), bits)
    return x.add_(c).sub_(c)


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
        fields = (lines // 2, 2, m, 2, half * n)
        self.squash, self.operand, self.what = squash, operand, f"the gradient at {layer.place}"
        weight, dweight = weights.matrix(layer, exact.weight_bits(SIZE * depth, SIZE**2 * m))
        self.weight, self.dweight = weight.view(-1), dweight.view(-1)
        together = 1 if c > 1 else 2  # lines that one product makes: few rows in a matrix are slow
        bias, self.dbias = weights.plain(layer.bias)
        self.bias = bias[:, None]
        self.bits, self.input_bits = exact.gradient_bits(n * lines * 2 * half)

        # the weights in a matrix [(line, map), (kernel line, kernel column, map it sees)], zero where nothing connects
        columns, seen = (SIZE + together - 1) * depth, SIZE * depth
        places = torch.arange(m * seen).view(m, SIZE, SIZE, c).permute(0, 3, 1, 2)
        rows, inner = _connected(layer, places) // seen, _connected(layer, places) % seen
        self.places = [(line * m + rows) * columns + line * depth + inner for line in range(together)]
        self.matrix = _doubles(together * m, columns)
        # five shifted copies of each line; the operand is windows of five lines
        self.views = operand.rounded.unfold(2, SIZE, 1).view(h, c, half, 2, n, SIZE).permute(0, 5, 1, 3, 2, 4)
        self.shifted = _doubles(*self.views.shape)
        self.windows = _overlapping(self.shifted.view(h, depth, width), SIZE + together - 1, together)
        self.sums = _doubles(lines, m, width)
        self.products = self.sums.view(-1, together * m, width)
        self.pixels = torch.empty(lines, m, width)
        self.fields = self.pixels.view(fields)
        self.scaled = self.pixels if squash.outer == 1 else torch.empty_like(self.pixels)
        self.pool = _pool(pooling, self.scaled.view(fields), y.value.flatten(2))

        self.dy = y.grad.flatten(2)
        self.dy_scaled = torch.empty(self.dy.shape)
        self.dpixels = torch.empty(lines, m, width)
        self.dfields = self.dpixels.view(fields)
        border = SIZE - 1 if needs_dx else 0  # lines of zeros around make the gradient at x a convolution too
        padded = _doubles(lines + 2 * border, m, width)
        self.dsums = padded[border : border + lines]
        self.dproducts = self.dsums.view(-1, together * m, width)
        self.dmatrices = _doubles(len(self.dproducts), together * m, columns)

        self.needs_dx = needs_dx
        if needs_dx:
            # the matrix turned around [(kernel column, map it sees), (kernel line from the last, map)]
            turned = torch.arange(depth * SIZE * m).view(SIZE, c, SIZE, m).flip(2).permute(3, 1, 2, 0)
            self.turned_places = _connected(layer, turned)
            self.turned = _doubles(depth, SIZE * m)
            self.dwindows = _overlapping(padded, SIZE, 1)
            self.dshifted = _doubles(h, depth, width)
            parts = self.dshifted.view(h, SIZE, c, 2, half, n).transpose(3, 4).unbind(1)
            self.dx, self.dx_sums = x.grad, _doubles(h, c, w, n)
            strides = (c * w * n, w * n, 2 * n, n, 1)
            self.parts = [(self.dx_sums.as_strided(part.shape, strides, i * n), part) for i, part in enumerate(parts)]

    def forward(self) -> None:
        self.operand.take()
        for places in self.places:
            self.matrix.view(-1).index_copy_(0, places, self.weight)
        self.shifted.copy_(self.views)
        torch.bmm(self.matrix.expand(len(self.windows), -1, -1), self.windows, out=self.products)
        self.squash.apply_(self.pixels.copy_(self.sums).add_(self.bias))
        if self.squash.outer != 1:
            torch.mul(self.pixels, self.squash.outer, out=self.scaled)
        self.pool.forward()

    def backward(self) -> None:
        torch.mul(self.dy, self.pool.share, out=self.dy_scaled)
        if self.squash.factor != 1:
            self.dy_scaled.mul_(self.squash.factor)
        self.squash.pull(self.pool.pull(self.dy_scaled), self.fields, self.dfields)
        self.dsums.copy_(_round_gradient_(self.dpixels, self.bits, self.what))
        if self.operand.take_together(self.input_bits) is not None:
            self.shifted.copy_(self.views)
        torch.bmm(self.dproducts, self.windows.mT, out=self.dmatrices)
        dmatrix = self.dmatrices.sum(0).view(-1)
        torch.index_select(dmatrix, 0, self.places[0], out=self.dweight)
        for places in self.places[1:]:
            self.dweight.add_(dmatrix.index_select(0, places))
        torch.sum(self.dsums, (0, 2), out=self.dbias)
        if self.needs_dx:
            self._backward_x()

    def _backward_x(self) -> None:
        self.turned.view(-1).index_copy_(0, self.turned_places, self.weight)
        torch.bmm(self.turned.expand(len(self.dwindows), -1, -1), self.dwindows, out=self.dshifted)
        self.dx_sums.zero_()
        for sums, part in self.parts:
            sums.add_(part)
        self.dx.copy_(self.dx_sums)


def _doubles(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _connected(layer: nn.Module, places: Tensor) -> Tensor:
    """From the places of the weights of all pairs of maps [m, c, 5, 5], those of the weights that the layer holds."""
    return (layer.connected(places) if isinstance(layer, SparseConv) else places).flatten()


def _overlapping(lines: Tensor, size: int, step: int) -> Tensor:
    """Lines [h, k, width] as windows of ``size`` of them, one every ``step`` lines, without a copy."""
    h, k, width = lines.shape
    shape, strides = ((h - size) // step + 1, size * k, width), (step * k * width, width, 1)
    return lines.as_strided(shape, strides, lines.storage_offset())


class _Sum:
    """Fields [line, 2, map, 2, rest] → share · their sums [line, map, rest]."""

    def __init__(self, fields: Tensor, y: Tensor, share: float) -> None:
        self.fields, self.y, self.share = fields, y, share
        self.pairs = fields.new_empty(fields[:, 0].shape)

    def forward(self) -> None:
        torch.add(self.fields[:, 0], self.fields[:, 1], out=self.pairs)
        torch.add(self.pairs[:, :, 0], self.pairs[:, :, 1], out=self.y)
        if self.share != 1:
            self.y.mul_(self.share)

    def pull(self, grad: Tensor) -> Tensor:
        """The gradient at the fields, or a view that broadcasts to it."""
        return grad[:, None, :, None]


class _Max:
    """Fields [line, 2, map, 2, rest] → their largest [line, map, rest]."""

    share = 1.0

    def __init__(self, fields: Tensor, y: Tensor) -> None:
        self.fields, self.y = fields, y
        self.largest = fields.new_empty(y.shape)

    def forward(self) -> None:
        torch.amax(self.fields, (1, 3), out=self.largest)
        self.y.copy_(self.largest)

    def pull(self, grad: Tensor) -> Tensor:
        """The gradient at the fields; of equal largest ones the first receives it."""
        pulled = torch.empty_like(self.fields)
        parts = [(i, j) for i in (0, 1) for j in (0, 1)]
        found = first_largest([self.fields[:, i, :, j] for i, j in parts], self.largest)
        for (i, j), its in zip(parts, found, strict=True):
            torch.mul(grad, its, out=pulled[:, i, :, j])
        return pulled


def _pool(layer: nn.Module, fields: Tensor, y: Tensor) -> _Sum | _Max:
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
        self.x, self.dx, self.y, self.dy = (each.flatten(2) for each in (x.value, x.grad, y.value, y.grad))
        self.value, self.d = torch.empty(2, *self.x.shape).unbind()

    def forward(self) -> None:
        self.squash.apply_(torch.mul(self.x, self.weight, out=self.value).add_(self.bias))
        torch.mul(self.value, self.squash.outer, out=self.y)

    def backward(self) -> None:
        self.squash.pull(self.dy if self.squash.factor == 1 else self.dy * self.squash.factor, self.value, self.d)
        torch.mul(self.d, self.weight, out=self.dx)
        self.dweight.copy_(exact.total(self.d * self.x, (0, 2), self.what))
        self.dbias.copy_(exact.total(self.d, (0, 2), self.what))


class _Full:
    """A fully connected layer, squashed. x [n, k] → y [n, m]."""

    def __init__(
        self, weights: _Weights, layer: nn.Linear, squash: Squash, operand: _Operand, x: Values, y: Values
    ) -> None:
        m, k = layer.weight.shape
        n = len(y.value)
        self.squash, self.operand, self.y, self.dx = squash, operand, y, x.grad
        self.what = f"the gradient at {layer.place}"
        self.weight, self.dweight = weights.matrix(layer, exact.weight_bits(k, m))
        self.bias, self.dbias = weights.plain(layer.bias)
        self.bits, self.input_bits = exact.gradient_bits(n)
        self.value = y.value if squash.outer == 1 else torch.empty_like(y.value)
        self.d = torch.empty_like(y.value)
        self.x, self.sums, self.dsums, self.dx_sums = _doubles(n, k), _doubles(n, m), _doubles(n, m), _doubles(n, k)

    def forward(self) -> None:
        self.x.copy_(self.operand.take())
        torch.mm(self.x, self.weight.T, out=self.sums)
        self.squash.apply_(self.value.copy_(self.sums).add_(self.bias))
        if self.squash.outer != 1:
            torch.mul(self.value, self.squash.outer, out=self.y.value)

    def backward(self) -> None:
        dy = self.y.grad if self.squash.factor == 1 else self.y.grad * self.squash.factor
        self.squash.pull(dy, self.value, self.d)
        self.dsums.copy_(_round_gradient_(self.d, self.bits, self.what))
        if (x := self.operand.take_together(self.input_bits)) is not None:
            self.x.copy_(x)
        torch.mm(self.dsums.T, self.x, out=self.dweight)
        torch.sum(self.dsums, 0, out=self.dbias)
        torch.mm(self.dsums, self.weight, out=self.dx_sums)
        self.dx.copy_(self.dx_sums)


class _RadialBasis:
    """Squared distances to codes. x [n, 84] → y [n, 10]."""

    def __init__(self, weights: _Weights, layer: RadialBasis, x: Values, y: Values) -> None:
        self.x, self.y, self.what = x, y, layer.place
        self.codes = layer.weight.detach()
        self.dcodes = weights.plain(layer.weight)[1] if isinstance(layer.weight, nn.Parameter) else None
        self.apart, self.part = torch.empty(2, len(x.value), *layer.weight.shape).unbind()

    def forward(self) -> None:
        torch.sub(self.x.value[:, None], self.codes, out=self.apart)
        squares = torch.mul(self.apart, self.apart, out=self.part)
        self.y.value.copy_(exact.rounded_each(squares, exact.GRID_BITS, DISTANCES, self.what).double().sum(2))

    def backward(self) -> None:
        torch.mul(self.apart, self.y.grad.mul_(2.0)[:, :, None], out=self.part)
        pulls = _round_gradient_(self.part, exact.GRID_BITS, f"the gradient at {self.what}").double()
        self.x.grad.copy_(pulls.sum(1))
        if self.dcodes is not None:
            torch.neg(pulls.sum(0), out=self.dcodes)


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
