"""What model.py, objective.py and levenberg.py say for one digit after another, computed fast: on-line training.

An update of one digit is little work in many calls, so there are few calls here, some fifty of torch, on buffers that
are made once. A layer's weights and biases are one matrix, and its inputs end in a constant 1; all parameters are one
vector, and so are their gradients. C3 has the kernels of all pairs of maps; those that Table I leaves out are zero and
never move. The factors of the squashing function outer · f(inner · a) are multiplied into the weights before a row of
updates and taken out again after it: for w' = s·w, the same step is s² times as large.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lenet.config import Criterion, DiagonalLevenbergMarquardt, MaximumLikelihood, Variant
from lenet.errors import InputError
from lenet.networks.kernels import SIZE, SQUASHES, Squash
from lenet.networks.lenet5 import LeNet5, RadialBasis, SparseConv, Subsampling
from lenet.training.levenberg import StochasticDiagonalLM


def fits(variant: Variant) -> bool:
    """Whether a variant's updates can be computed here."""
    return variant.batch_size == 1 and isinstance(variant.optimizer, DiagonalLevenbergMarquardt)


class OnLine:
    """Updates of a network, digit by digit.

    Args:
        network: one with trainable subsampling, whose output is distances to codes.
        section: the loss.
    """

    def __init__(self, network: LeNet5, section: Criterion) -> None:
        assert isinstance(network.output, RadialBasis)
        squash = SQUASHES[network.activation]
        self.network, self.section, self.outer = network, section, squash.outer
        sizes = {"C1": (6, 26), "S2": (6, 2), "C3": (16, 151), "S4": (16, 2), "C5": (120, 401), "F6": (84, 121)}
        places, count = {}, 0
        for name, (units, inputs) in sizes.items():
            places[name] = count + torch.arange(units * inputs).view(units, inputs)
            count += units * inputs
        places["output"] = count + torch.arange(840).view(10, 84)
        values, gradients, self.step_sizes = torch.zeros(3, count + 840).unbind()
        self.values, self.gradients = values, gradients
        w, g = ({name: flat[its[0, 0] :][: its.numel()].view(its.shape) for name, its in places.items()}
                for flat in (values, gradients))  # fmt: skip

        self.field = _Values(1024)
        c1, s2, c3, s4, c5, f6 = (
            _Values(6, 4, 196),
            _Values(1176),
            _Values(16, 4, 25),
            _Values(401),
            _Values(121),
            _Values(84),
        )
        self.layers: list[_Convolution | _Subsampling | _Units] = [
            _Convolution(w["C1"], g["C1"], self.field, c1, squash, needs_dx=False),
            _Subsampling(w["S2"], g["S2"], c1, s2, squash),
            _Convolution(w["C3"], g["C3"], s2, c3, squash, needs_dx=True),
            _Subsampling(w["S4"], g["S4"], c3, s4, squash),
            _Units(w["C5"], g["C5"], s4, c5, squash),
            _Units(w["F6"], g["F6"], c5, f6, squash),
        ]
        self.codes = _Codes(w["output"], g["output"], f6, learned=isinstance(network.output.weight, nn.Parameter))
        rubbish = 0.0 if isinstance(section, MaximumLikelihood) else section.j
        self.likelihoods, self.shares = torch.full((11,), -rubbish), torch.empty(11)

        factor = squash.inner * squash.outer
        pairs: list[tuple[Tensor, Tensor, float]] = []  # parameter, its places, what it is multiplied by
        for layer, its in zip(network.children(), places.values(), strict=True):
            weights, scale = its[:, :-1], factor
            if isinstance(layer, RadialBasis):
                pairs.append((layer.weight, its, 1 / squash.outer))
                continue
            if isinstance(layer, SparseConv):
                weights = layer.connected(weights.reshape(16, 6, SIZE, SIZE))
            elif isinstance(layer, Subsampling):
                scale *= layer.share
            elif layer is network.C1:
                scale = squash.inner
            assert isinstance(layer.weight, Tensor)
            assert isinstance(layer.bias, Tensor)
            pairs += [(layer.weight, weights, scale), (layer.bias, its[:, -1], squash.inner)]
        self.held = [parameter.detach().view(-1) for parameter, _, _ in pairs]
        self.places = torch.cat([its.flatten() for _, its, _ in pairs])
        self.scales = torch.cat([torch.full((its.numel(),), scale) for _, its, scale in pairs])

    @torch.no_grad()
    def updates(
        self, inputs: Float[Tensor, "n 1 32 32"], labels: Int64[Tensor, " n"], rule: StochasticDiagonalLM
    ) -> Float[Tensor, "n 10"]:
        """Learn from one digit after another; the network's outputs for each before its update.

        Args:
            inputs: the digits.
            labels: their classes.
            rule: it knows the size of each parameter's steps.
        """
        self._take()
        self._take_step_sizes(rule)
        distances = torch.empty(len(labels), 10)
        strength = 2 * self.section.factor * self.outer**2
        rights = F.one_hot(labels, 10).to(inputs.dtype)
        for field, right, its_distances in zip(inputs.flatten(1), rights, distances, strict=True):
            self._forward(field, its_distances)
            self.codes.backward(self._pulls(right, its_distances), strength)
            for layer in reversed(self.layers):
                layer.backward()
            self.values.addcmul_(self.step_sizes, self.gradients, value=-1)
        self._give_back()
        return distances * self.outer**2

    @torch.no_grad()
    def check(self, inputs: Float[Tensor, "n 1 32 32"]) -> None:
        """Raise InputError if this does not answer as the modules of model.py do: whoever changes one changes both."""
        self._take()
        distances = torch.empty(len(inputs), 10)
        for field, its_distances in zip(inputs.flatten(1), distances, strict=True):
            self._forward(field, its_distances)
        if not torch.allclose(distances * self.outer**2, self.network(inputs), rtol=1e-3, atol=1e-3):
            raise InputError("online.py computes another network than model.py; make the same change in both")

    def _forward(self, field: Tensor, distances: Tensor) -> None:
        """From one input (1024) to its distances (10), in units of the squashing function's limits."""
        self.field.value.copy_(field)
        for layer in self.layers:
            layer.forward()
        self.codes.forward(distances)

    def _pulls(self, right: Tensor, distances: Tensor) -> Tensor:
        """How much each code pulls F6's state towards itself: the loss's gradient by the penalties."""
        if isinstance(self.section, MaximumLikelihood):
            return right
        torch.mul(distances, -self.section.factor * self.outer**2, out=self.likelihoods[:-1])
        torch.softmax(self.likelihoods, 0, out=self.shares)
        return right.sub_(self.shares[:-1])

    def _take(self) -> None:
        """Parameters from the network."""
        self.values.index_copy_(0, self.places, torch.cat(self.held).mul_(self.scales))

    def _take_step_sizes(self, rule: StochasticDiagonalLM) -> None:
        """Step sizes from the optimizer; the codes stand last, and move only if they are parameters."""
        sizes = torch.cat([size.flatten() for size in rule.step_sizes()])
        places, scales = self.places[: len(sizes)], self.scales[: len(sizes)]
        self.step_sizes.index_copy_(0, places, sizes * scales**2)

    def _give_back(self) -> None:
        """Parameters to the network."""
        learned = self.values.index_select(0, self.places).div_(self.scales)
        for parameter, its in zip(self.held, learned.split([len(each) for each in self.held]), strict=True):
            parameter.copy_(its)


class _Values:
    """Values, and the loss's gradient at them. Behind the values of units stands a 1, for their biases."""

    def __init__(self, *shape: int) -> None:
        self.value, self.grad = torch.ones(shape), torch.zeros(shape)


class _Convolution:
    """A convolution, squashed. x (maps · side²) → y [maps, pixel of a 2×2 field, field]."""

    def __init__(self, weight: Tensor, dweight: Tensor, x: _Values, y: _Values, squash: Squash, needs_dx: bool) -> None:
        maps = (weight.shape[1] - 1) // SIZE**2
        side = round((len(x.value) / maps) ** 0.5)
        pixels = (
            torch.arange(len(x.value))
            .view(maps, side, side)
            .unfold(1, side - SIZE + 1, 1)
            .unfold(2, side - SIZE + 1, 1)
        )
        fields = pixels.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 2, 4, 6, 3, 5)
        self.places = fields.flatten()  # of x, in the order [map, kernel line, kernel column | pixel of a field, field]
        self.windows = torch.ones(weight.shape[1], fields[0, 0, 0].numel())
        self.f, self.weight, self.dweight = squash.f, weight, dweight
        self.x, self.y, self.d = x.value, y.value.flatten(1), y.grad.flatten(1)
        self.filled, self.turned = self.windows[:-1].view(-1), self.windows.T
        self.dx = x.grad if needs_dx else None
        self.weight_turned, self.dwindows = weight[:, :-1].T, torch.empty_like(self.windows[:-1])
        self.dfilled = self.dwindows.view(-1)

    def forward(self) -> None:
        torch.index_select(self.x, 0, self.places, out=self.filled)
        self.f(torch.mm(self.weight, self.windows, out=self.y))

    def backward(self) -> None:
        torch.mm(self.d, self.turned, out=self.dweight)
        if self.dx is not None:
            torch.mm(self.weight_turned, self.d, out=self.dwindows)
            self.dx.zero_().scatter_add_(0, self.places, self.dfilled)


class _Subsampling:
    """The sum of each field, times a coefficient, plus a bias, squashed. x [maps, 4, fields] → y (maps · fields …)."""

    def __init__(self, weight: Tensor, dweight: Tensor, x: _Values, y: _Values, squash: Squash) -> None:
        maps, _, fields = x.value.shape
        self.f, self.pull = squash.f, squash.pull
        self.coefficient, self.bias = weight[:, :1], weight[:, 1:]
        self.dcoefficient, self.dbias = dweight.unbind(1)
        self.x, self.dx = x.value, x.grad
        self.y, self.dy = (each[: maps * fields].view(maps, fields) for each in (y.value, y.grad))
        self.sums, self.d, self.products, self.dsums = torch.empty(4, maps, fields).unbind()
        self.to_all = self.dsums[:, None].expand_as(x.value)

    def forward(self) -> None:
        torch.sum(self.x, 1, out=self.sums)
        self.f(torch.addcmul(self.bias, self.sums, self.coefficient, out=self.y))

    def backward(self) -> None:
        """Down to the sums that the convolution before it squashes."""
        self.pull(self.dy, self.y, self.d)
        torch.sum(self.d, 1, out=self.dbias)
        torch.sum(torch.mul(self.d, self.sums, out=self.products), 1, out=self.dcoefficient)
        torch.mul(self.d, self.coefficient, out=self.dsums)
        self.pull(self.to_all, self.x, self.dx)


class _Units:
    """A layer of units, squashed. x (inputs, 1) → y (units, …)."""

    def __init__(self, weight: Tensor, dweight: Tensor, x: _Values, y: _Values, squash: Squash) -> None:
        units = len(weight)
        self.f, self.pull = squash.f, squash.pull
        self.weight, self.turned, self.dweight = weight, weight.T, dweight
        self.x, self.row, self.dx = x.value, x.value[None], x.grad
        self.y, self.dy, self.d = y.value[:units], y.grad[:units], torch.empty(units)
        self.column = self.d[:, None]

    def forward(self) -> None:
        self.f(torch.mv(self.weight, self.x, out=self.y))

    def backward(self) -> None:
        self.pull(self.dy, self.y, self.d)
        torch.mul(self.column, self.row, out=self.dweight)
        torch.mv(self.turned, self.d, out=self.dx)


class _Codes:
    """Squared distances to codes. x (84) → the ten distances."""

    def __init__(self, weight: Tensor, dweight: Tensor, x: _Values, learned: bool) -> None:
        self.weight, self.dweight, self.x, self.dx, self.learned = weight, dweight, x.value, x.grad, learned
        self.apart, self.squares = torch.empty_like(weight), torch.empty_like(weight)
        self.turned = self.apart.T

    def forward(self, distances: Tensor) -> None:
        torch.sub(self.x, self.weight, out=self.apart)
        torch.sum(torch.mul(self.apart, self.apart, out=self.squares), 1, out=distances)

    def backward(self, pulls: Tensor, strength: float) -> None:
        torch.addmv(self.dx, self.turned, pulls, beta=0, alpha=strength, out=self.dx)
        if self.learned:
            torch.mul(self.apart, pulls[:, None], out=self.dweight).mul_(-strength)
