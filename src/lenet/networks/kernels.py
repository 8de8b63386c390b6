"""What model.py says, computed fast on one core: outputs and, by formulas derived by hand, gradients.

Activations lie in memory as [line, map, column, digit]. With the digits innermost, shifting a window, adding the pixels
of a 2×2 field and squashing run over long contiguous stretches, and a convolution is one matrix multiplication per
output line, whose operand is a view on five overlapping lines. All buffers and views are made once for a batch size, so
that a step is some sixty calls of torch and allocates next to nothing.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenet.errors import InputError
from lenet.networks.lenet5 import LeNet5, RadialBasis, SparseConv, Subsampling

SIZE = 5  # of the kernels

aten = torch.ops.aten


def _pull_sigmoid(grad: Tensor, value: Tensor, out: Tensor) -> None:
    aten.sigmoid_backward.grad_input(grad, value, grad_input=out)


def _pull_tanh(grad: Tensor, value: Tensor, out: Tensor) -> None:
    aten.tanh_backward.grad_input(grad, value, grad_input=out)


def _pull_relu(grad: Tensor, value: Tensor, out: Tensor) -> None:
    aten.threshold_backward.grad_input(grad, value, 0, grad_input=out)


@dataclass(frozen=True)
class Squash:
    """The squashing function outer · f(inner · a).

    Attributes:
        f: in place.
        pull: from the gradient at f's value and that value, write the gradient at f's argument.
    """

    f: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor, Tensor], None]
    inner: float = 1.0
    outer: float = 1.0


SQUASHES = {
    "sigmoid": Squash(Tensor.sigmoid_, _pull_sigmoid),
    "scaled-tanh": Squash(Tensor.tanh_, _pull_tanh, 2 / 3, 1.7159),
    "tanh": Squash(Tensor.tanh_, _pull_tanh),
    "relu": Squash(Tensor.relu_, _pull_relu),
}
LINEAR = Squash(lambda a: a, lambda grad, value, out: None)


class Passes:
    """A network's forward and backward pass for batches of one size, in buffers that the next call overwrites.

    Args:
        network: its parameters are read at every call, and have to stay where they are in memory.
        n: digits in a batch.

    Attributes:
        inputs: the batch (n, 1, 32, 32), to be filled before ``forward``.
    """

    def __init__(self, network: LeNet5, n: int) -> None:
        squash = SQUASHES[network.activation]
        like = network.C1.weight.detach()

        def fields(layer: nn.Module) -> Values:
            if layer is network.C1:
                return Values(like, 14, 6, 14, n)
            return Values(like, 16, 5, 5, n).swapped()  # maps first in memory, as in C5's weights

        x = Values(like, 32, 1, 32, n)
        self.inputs = x.value.permute(3, 1, 0, 2)
        self.layers: list[_Convolution | _Subsampling | _Full | _RadialBasis] = []
        for layer, pooling in ((network.C1, network.S2), (network.C3, network.S4)):
            y = fields(layer)
            self.layers.append(_Convolution(layer, pooling, squash, x, y, needs_dx=layer is not network.C1))
            if isinstance(pooling, Subsampling):
                x, y = y, fields(layer)
                self.layers.append(_Subsampling(pooling, squash, x, y))
            x = y
        x = x.swapped().flat()
        last = squash if network.squash_output else LINEAR
        for full, its_squash in ((network.C5, squash), (network.F6, squash), (network.output, last)):
            y = Values(like, len(full.weight), n)
            self.layers.append(
                _RadialBasis(full, x, y) if isinstance(full, RadialBasis) else _Full(full, its_squash, x, y)
            )
            x = y
        self.last = x
        gradients = [gradient for layer in self.layers for gradient in layer.gradients]
        self.gradients = list(zip(network.parameters(), gradients, strict=True))

    def forward(self) -> Float[Tensor, "n 10"]:
        """The outputs for ``inputs``."""
        with torch.no_grad():
            for layer in self.layers:
                layer.forward()
            return self.last.value.T.contiguous()

    def backward(self, dscores: Float[Tensor, "n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``."""
        with torch.no_grad():
            self.last.grad.copy_(dscores.T)
            for layer in reversed(self.layers):
                layer.backward()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient


class Values:
    """A buffer for a layer's values and one for the loss's gradient at them."""

    def __init__(self, like: Tensor, *shape: int) -> None:
        self.value, self.grad = like.new_empty(shape), like.new_empty(shape)

    def _viewed(self, view: Callable[[Tensor], Tensor]) -> "Values":
        other = copy(self)
        other.value, other.grad = view(self.value), view(self.grad)
        return other

    def swapped(self) -> "Values":
        """The first two dimensions the other way round."""
        return self._viewed(lambda x: x.transpose(0, 1))

    def flat(self) -> "Values":
        """Everything but the digits in one dimension."""
        return self._viewed(lambda x: x.view(-1, x.shape[-1]))


class _Convolution:
    """C1 with S2, or C3 with S4: a convolution, squashed, its 2×2 pixels pooled.

    x [h, c, w, n] → y [h/2 − 2, m, w/2 − 2, n]. Within a line of pixels the even columns stand before the odd
    ones, so that pooling adds whole stretches.
    """

    def __init__(
        self, layer: nn.Conv2d | SparseConv, pooling: nn.Module, squash: Squash, x: Values, y: Values, needs_dx: bool
    ) -> None:
        h, c, w, n = x.value.shape
        m, half = y.value.shape[1:3]
        lines, depth, width = h - SIZE + 1, SIZE * c, 2 * half * n
        fields = (lines // 2, 2, m, 2, half * n)
        new = x.value.new_empty
        self.squash, self.weight, self.bias = squash, layer.weight.detach().view(-1), layer.bias.detach()[:, None]  # type: ignore[union-attr]
        self.gradients = self.dweight, self.dbias = torch.empty_like(layer.weight), new(m)

        # the weights in a matrix [map, (kernel line, kernel column, map it sees)], zero where there is no connection
        columns = SIZE * depth
        places = torch.arange(m * columns).view(m, SIZE, SIZE, c).permute(0, 3, 1, 2)
        self.places = _connected(layer, places)
        self.matrix = new(m, columns).zero_()
        # five shifted copies of each line; the operand is windows of five lines
        self.views = x.value.unfold(2, SIZE, 1).view(h, c, half, 2, n, SIZE).permute(0, 5, 1, 3, 2, 4)
        self.shifted = new(self.views.shape)
        self.windows = _overlapping(self.shifted.view(h, depth, width), lines)
        self.pixels = new(lines, m, width)
        self.pool = _pool(pooling, self.pixels.view(fields), y.value.flatten(2), squash.outer)

        self.dy = y.grad.flatten(2)
        self.dy_scaled = new(self.dy.shape)
        border = SIZE - 1 if needs_dx else 0  # lines of zeros around make the gradient at x a convolution too
        padded = new(lines + 2 * border, m, width).zero_()
        self.dpixels = padded[border : border + lines]
        self.dfields = self.dpixels.view(fields)
        self.upright = c > 1  # the faster way round for many columns
        self.dmatrices = new((lines, columns, m) if self.upright else (lines, m, columns))
        self.dmatrix = new(self.dmatrices.shape[1:])
        self.dplaces = self.places % columns * m + self.places // columns if self.upright else self.places

        self.needs_dx = needs_dx
        if needs_dx:
            # the matrix turned around [(kernel column, map it sees), (kernel line from the last, map)]
            turned = torch.arange(depth * SIZE * m).view(SIZE, c, SIZE, m).flip(2).permute(3, 1, 2, 0)
            self.turned_places = _connected(layer, turned)
            self.turned = new(depth, SIZE * m).zero_()
            self.dwindows = _overlapping(padded, h)
            self.dshifted = new(h, depth, width)
            parts = self.dshifted.view(h, SIZE, c, 2, half, n).transpose(3, 4).unbind(1)
            strides = (c * w * n, w * n, 2 * n, n, 1)
            self.dx = x.grad
            self.sums = [(x.grad.as_strided(part.shape, strides, i * n), part) for i, part in enumerate(parts)]

    def forward(self) -> None:
        self.matrix.view(-1).index_copy_(0, self.places, self.weight)
        self.shifted.copy_(self.views)
        matrix, inner = self.matrix.expand(len(self.windows), -1, -1), self.squash.inner
        torch.baddbmm(self.bias, matrix, self.windows, beta=inner, alpha=inner, out=self.pixels)
        self.squash.f(self.pixels)
        self.pool.forward()

    def backward(self) -> None:
        torch.mul(self.dy, self.pool.factor * self.squash.inner, out=self.dy_scaled)
        self.squash.pull(self.pool.pull(self.dy_scaled), self.pool.fields, self.dfields)
        if self.upright:
            torch.bmm(self.windows, self.dpixels.mT, out=self.dmatrices)
        else:
            torch.bmm(self.dpixels, self.windows.mT, out=self.dmatrices)
        torch.sum(self.dmatrices, 0, out=self.dmatrix)
        torch.index_select(self.dmatrix.view(-1), 0, self.dplaces, out=self.dweight.view(-1))
        torch.sum(self.dpixels, (0, 2), out=self.dbias)
        if self.needs_dx:
            self._backward_x()

    def _backward_x(self) -> None:
        self.turned.view(-1).index_copy_(0, self.turned_places, self.weight)
        torch.bmm(self.turned.expand(len(self.dwindows), -1, -1), self.dwindows, out=self.dshifted)
        self.dx.zero_()
        for total, part in self.sums:
            total.add_(part)


def _connected(layer: nn.Conv2d | SparseConv, places: Tensor) -> Tensor:
    """From the places of the weights of all pairs of maps [m, c, 5, 5], those of the weights that the layer holds."""
    return (layer.connected(places) if isinstance(layer, SparseConv) else places).flatten()


def _overlapping(lines: Tensor, count: int) -> Tensor:
    """Lines [h, k, width] as ``count`` overlapping windows of five of them [count, 5·k, width], without a copy."""
    _, k, width = lines.shape
    return lines.as_strided((count, SIZE * k, width), (k * width, width, 1), lines.storage_offset())


class _Sum:
    """Fields [line, 2, map, 2, rest] → factor · their sums [line, map, rest]."""

    def __init__(self, fields: Tensor, y: Tensor, factor: float) -> None:
        self.fields, self.y, self.factor = fields, y, factor
        self.pairs = fields.new_empty(fields[:, 0].shape)

    def forward(self) -> None:
        torch.add(self.fields[:, 0], self.fields[:, 1], out=self.pairs)
        torch.add(self.pairs[:, :, 0], self.pairs[:, :, 1], out=self.y)
        self.y.mul_(self.factor)

    def pull(self, grad: Tensor) -> Tensor:
        """The gradient at the fields, or a view that broadcasts to it."""
        return grad[:, None, :, None].expand_as(self.fields)


class _Max:
    """Fields [line, 2, map, 2, rest] → factor · their largest [line, map, rest]."""

    def __init__(self, fields: Tensor, y: Tensor, factor: float) -> None:
        self.fields, self.y, self.factor = fields, y, factor
        self.largest = fields.new_empty(y.shape)

    def forward(self) -> None:
        torch.amax(self.fields, (1, 3), out=self.largest)
        torch.mul(self.largest, self.factor, out=self.y)

    def pull(self, grad: Tensor) -> Tensor:
        """The gradient at the fields; equal largest ones all receive it."""
        return grad[:, None, :, None] * (self.fields == self.largest[:, None, :, None])


def _pool(layer: nn.Module, fields: Tensor, y: Tensor, outer: float) -> _Sum | _Max:
    """What a layer's pooling makes of squashed pixels that are still to be multiplied by ``outer``."""
    if isinstance(layer, nn.MaxPool2d):
        return _Max(fields, y, outer)
    return _Sum(fields, y, outer * (layer.share if isinstance(layer, Subsampling) else 0.25))


class _Subsampling:
    """Trainable subsampling after its mean or sum: times a coefficient, plus a bias, squashed. x and y [h, m, w, n]."""

    def __init__(self, layer: Subsampling, squash: Squash, x: Values, y: Values) -> None:
        self.squash = squash
        self.weight, self.bias = layer.weight.detach()[:, None], layer.bias.detach()[:, None]
        self.gradients = self.dweight, self.dbias = torch.empty_like(layer.weight), torch.empty_like(layer.bias)
        self.x, self.dx, self.y, self.dy = (each.flatten(2) for each in (x.value, x.grad, y.value, y.grad))
        self.value, self.d = torch.empty_like(self.x), torch.empty_like(self.x)

    def forward(self) -> None:
        torch.mul(self.x, self.weight * self.squash.inner, out=self.value)
        self.squash.f(self.value.add_(self.bias * self.squash.inner))
        torch.mul(self.value, self.squash.outer, out=self.y)

    def backward(self) -> None:
        torch.mul(self.dy, self.squash.outer * self.squash.inner, out=self.d)
        self.squash.pull(self.d, self.value, self.d)
        torch.mul(self.d, self.weight, out=self.dx)
        torch.sum(self.d, (0, 2), out=self.dbias)
        torch.sum(self.d.mul_(self.x), (0, 2), out=self.dweight)


class _Full:
    """A fully connected layer, squashed. x [k, n] → y [m, n]."""

    def __init__(self, layer: nn.Linear, squash: Squash, x: Values, y: Values) -> None:
        self.squash, self.x, self.y = squash, x, y
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()[:, None]
        self.gradients = self.dweight, self.dbias = torch.empty_like(layer.weight), torch.empty_like(layer.bias)
        self.value = y.value if squash.outer == 1 else torch.empty_like(y.value)

    def forward(self) -> None:
        inner, outer = self.squash.inner, self.squash.outer
        torch.addmm(self.bias, self.weight, self.x.value, beta=inner, alpha=inner, out=self.value)
        self.squash.f(self.value)
        if outer != 1:
            torch.mul(self.value, outer, out=self.y.value)

    def backward(self) -> None:
        d, factor = self.y.grad, self.squash.outer * self.squash.inner
        if factor != 1:
            d.mul_(factor)
        self.squash.pull(d, self.value, d)
        torch.mm(d, self.x.value.T, out=self.dweight)
        torch.sum(d, 1, out=self.dbias)
        torch.mm(self.weight.T, d, out=self.x.grad)


class _RadialBasis:
    """Squared distances to codes. x [k, n] → y [m, n]."""

    def __init__(self, layer: RadialBasis, x: Values, y: Values) -> None:
        self.weight, self.x, self.y = layer.weight.detach()[:, :, None], x, y
        self.apart = x.value.new_empty(*layer.weight.shape, x.value.shape[-1])
        self.part = torch.empty_like(self.apart)
        self.gradients = (torch.empty_like(layer.weight),) if isinstance(layer.weight, nn.Parameter) else ()

    def forward(self) -> None:
        torch.sub(self.x.value, self.weight, out=self.apart)
        torch.mul(self.apart, self.apart, out=self.part)
        torch.sum(self.part, 1, out=self.y.value)

    def backward(self) -> None:
        torch.mul(self.apart, self.y.grad.mul_(2)[:, None], out=self.part)
        torch.sum(self.part, 0, out=self.x.grad)
        for dweight in self.gradients:
            torch.sum(self.part, 2, out=dweight).neg_()


def check(network: LeNet5, inputs: Float[Tensor, "n 1 32 32"]) -> None:
    """Raise InputError if the passes do not answer as the modules of model.py do: whoever changes one changes both."""
    passes = Passes(network, len(inputs))
    passes.inputs.copy_(inputs)
    with torch.no_grad():
        same = torch.allclose(passes.forward(), network(inputs), rtol=1e-3, atol=1e-3)
    if not same:
        raise InputError("kernels.py computes another network than model.py; make the same change in both")
