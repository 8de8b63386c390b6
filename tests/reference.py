"""The networks and their gradients in NumPy, double precision, layer by layer, from the documents' formulas.

Independent of torch and of src/lenet but for the names of parameters. Sums over a kernel's places are loops; those over
a map's pixels, and over digits, are NumPy's. Shapes: maps are (digits, maps, height, width), units (digits, units).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Back = Callable[[Array], Array]
"""From the loss's gradient at a layer's result, note those at its parameters and return that at its input."""

TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""
CONNECTED = [[mark == "X" for mark in row.split()] for row in TABLE_I.strip().splitlines()]
"""Whether C3's map (column) sees S2's map (row)."""

SQUASH = {
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda y: y * (1 - y)),
    "scaled-tanh": (lambda a: 1.7159 * np.tanh(2 * a / 3), lambda y: 2 / 3 * (1.7159 - y**2 / 1.7159)),
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "relu": (lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(float)),
}
"""Functions, and their derivatives as functions of their values."""


class Network:
    """A variant's network with given parameters.

    Args:
        block: the variant's block of params.yaml.
        parameters: by name.

    Attributes:
        gradients: the loss's at the parameters, after ``learn`` or ``back``.
    """

    def __init__(self, block: Mapping[str, Any], parameters: Mapping[str, Array], codes: Array) -> None:
        self.block, self.p, self.codes = block, parameters, codes
        self.gradients: dict[str, Array] = {}
        self.backs: list[Back] = []

    def run(self, x: Array) -> Array:
        """The outputs (digits, 10) for inputs (digits, 1, 32, 32)."""
        self.backs = []
        network = self.block["network"]
        return self._convnet(x, network["stages"]) if "stages" in network else self._lenet5(x, network)

    def learn(self, x: Array, labels: Array) -> float:
        """The loss, averaged over digits; its gradients are in ``gradients``."""
        loss, gradient = self._loss(self.run(x), labels)
        self.back(gradient)
        return loss

    def back(self, gradient: Array) -> None:
        """From the loss's gradient at the outputs of the last ``run``, those at the parameters, into ``gradients``."""
        for back in reversed(self.backs):
            gradient = back(gradient)

    def _do(self, layer: Callable[..., tuple[Array, Back]], x: Array, *arguments: Any) -> Array:
        y, back = layer(x, *arguments)
        self.backs.append(back)
        return y

    # networks

    def _lenet5(self, x: Array, network: Mapping[str, Any]) -> Array:
        squash = network["activation"]
        for convolution, pooling in (("C1", "S2"), ("C3", "S4")):
            sparse = convolution == "C3" and network["C3"] == "table"
            x = self._do(self._table if sparse else self._convolve, x, convolution, 0)
            x = self._do(self._squash, x, squash)
            kind = network["pooling"]["kind"]
            x = self._do(self._maxima if kind == "max" else self._means, x, 1 if kind == "trainable-sum" else 0.25)
            if kind.startswith("trainable"):
                x = self._do(self._scale, x, pooling)
                x = self._do(self._squash, x, squash)
        x = self._do(self._flatten, x)
        for layer in ("C5", "F6"):
            x = self._do(self._full, x, layer)
            x = self._do(self._squash, x, squash)
        if network["output"].endswith("rbf"):
            return self._do(self._distances, x)
        x = self._do(self._full, x, "output")
        return self._do(self._squash, x, squash) if network["output"] == "squashed" else x

    def _convnet(self, x: Array, stages: Iterable[Iterable[Mapping[str, int]]]) -> Array:
        x, number, last = x[:, :, 2:-2, 2:-2], 0, list(stages)[-1]
        for stage in stages:
            for i, convolution in enumerate(stage):
                number += 1
                x = self._do(self._convolve, x, f"C{number}", convolution["padding"])
                if i + 1 == len(list(stage)) and stage is not last:
                    number += 1
                    x = self._do(self._maxima, x, 1)
                x = self._do(self._normalise, x, f"N{number}")
                x = self._do(self._squash, x, "relu")
        x = self._do(self._map_means, x)
        return self._do(self._full, x, "output")

    # layers: input → result, and the way back

    def _convolve(self, x: Array, name: str, padding: int) -> tuple[Array, Back]:
        """a_o(r, c) = b_o + Σ_i Σ_u Σ_v w_oi(u, v) x_i(r + u, c + v)."""
        weight, bias = self.p[f"{name}.weight"], self.p.get(f"{name}.bias")
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        size = weight.shape[2]
        h, w = x.shape[2] - size + 1, x.shape[3] - size + 1
        y = np.zeros((len(x), len(weight), h, w))
        for u, v in np.ndindex(size, size):
            y += np.einsum("oi,nirc->norc", weight[:, :, u, v], x[:, :, u : u + h, v : v + w])
        if bias is not None:
            y += bias[:, None, None]

        def back(dy: Array) -> Array:
            dx, dweight = np.zeros_like(x), np.zeros_like(weight)
            for u, v in np.ndindex(size, size):
                dweight[:, :, u, v] = np.einsum("norc,nirc->oi", dy, x[:, :, u : u + h, v : v + w])
                dx[:, :, u : u + h, v : v + w] += np.einsum("norc,oi->nirc", dy, weight[:, :, u, v])
            self.gradients[f"{name}.weight"] = dweight
            if bias is not None:
                self.gradients[f"{name}.bias"] = dy.sum((0, 2, 3))
            return dx[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]

        return y, back

    def _table(self, x: Array, name: str, padding: int) -> tuple[Array, Back]:
        """The same, where map o sees some maps i alone; their kernels are held one after another, ordered by o."""
        held = self.p[f"{name}.weight"]
        places = [(o, i) for o in range(16) for i in range(6) if CONNECTED[i][o]]
        dense = np.zeros((16, 6, 5, 5))
        for kernel, (o, i) in zip(held, places, strict=True):
            dense[o, i] = kernel
        other = Network(self.block, {**self.p, f"{name}.weight": dense}, self.codes)
        y, its_back = other._convolve(x, name, padding)

        def back(dy: Array) -> Array:
            dx = its_back(dy)
            found = other.gradients[f"{name}.weight"]
            self.gradients[f"{name}.weight"] = np.stack([found[o, i] for o, i in places])
            self.gradients[f"{name}.bias"] = other.gradients[f"{name}.bias"]
            return dx

        return y, back

    def _squash(self, a: Array, kind: str) -> tuple[Array, Back]:
        function, slope = SQUASH[kind]
        y = function(a)
        return y, lambda dy: dy * slope(y)

    def _means(self, x: Array, share: float) -> tuple[Array, Back]:
        """y(r, c) = share · Σ_u Σ_v x(2r + u, 2c + v): a quarter for the mean, 1 for the sum."""
        y = share * sum(x[:, :, u::2, v::2] for u, v in np.ndindex(2, 2))

        def back(dy: Array) -> Array:
            dx = np.zeros_like(x)
            for u, v in np.ndindex(2, 2):
                dx[:, :, u::2, v::2] = share * dy
            return dx

        return y, back

    def _maxima(self, x: Array, _: float) -> tuple[Array, Back]:
        """The largest of four; the first of equally large ones, line by line, takes the gradient."""
        four = np.stack([x[:, :, u::2, v::2] for u, v in np.ndindex(2, 2)])
        winner = four.argmax(0)

        def back(dy: Array) -> Array:
            dx = np.zeros_like(x)
            for number, (u, v) in enumerate(np.ndindex(2, 2)):
                dx[:, :, u::2, v::2] = np.where(winner == number, dy, 0)
            return dx

        return four.max(0), back

    def _scale(self, x: Array, name: str) -> tuple[Array, Back]:
        """a_m = β_m x_m + b_m."""
        weight, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]

        def back(dy: Array) -> Array:
            self.gradients[f"{name}.weight"] = (dy * x).sum((0, 2, 3))
            self.gradients[f"{name}.bias"] = dy.sum((0, 2, 3))
            return dy * weight[:, None, None]

        return x * weight[:, None, None] + bias[:, None, None], back

    def _normalise(self, x: Array, name: str) -> tuple[Array, Back]:
        """γ (x − μ) / √(σ² + 1e-5) + β, with each map's mean and variance over digits and pixels."""
        weight, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]
        mean, deviation = x.mean((0, 2, 3), keepdims=True), np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        z = (x - mean) / deviation

        def back(dy: Array) -> Array:
            self.gradients[f"{name}.weight"] = (dy * z).sum((0, 2, 3))
            self.gradients[f"{name}.bias"] = dy.sum((0, 2, 3))
            dz = dy * weight[:, None, None]
            common = dz.mean((0, 2, 3), keepdims=True) + z * (dz * z).mean((0, 2, 3), keepdims=True)
            return (dz - common) / deviation

        return z * weight[:, None, None] + bias[:, None, None], back

    def _map_means(self, x: Array) -> tuple[Array, Back]:
        area = x.shape[2] * x.shape[3]
        return x.mean((2, 3)), lambda dy: np.broadcast_to(dy[:, :, None, None] / area, x.shape)

    def _flatten(self, x: Array) -> tuple[Array, Back]:
        return x.reshape(len(x), -1), lambda dy: dy.reshape(x.shape)

    def _full(self, x: Array, name: str) -> tuple[Array, Back]:
        """a_o = b_o + Σ_i w_oi x_i."""
        weight, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]

        def back(dy: Array) -> Array:
            self.gradients[f"{name}.weight"] = np.einsum("no,ni->oi", dy, x)
            self.gradients[f"{name}.bias"] = dy.sum(0)
            return np.einsum("no,oi->ni", dy, weight)

        return np.einsum("oi,ni->no", weight, x) + bias, back

    def _distances(self, x: Array) -> tuple[Array, Back]:
        """y_i = Σ_j (x_j − w_ij)²."""
        apart = x[:, None] - self.codes

        def back(dy: Array) -> Array:
            self.gradients["output.weight"] = -2 * np.einsum("ni,nij->ij", dy, apart)
            return 2 * np.einsum("ni,nij->nj", dy, apart)

        return (apart**2).sum(2), back

    # losses: outputs → value and gradient

    def _loss(self, outputs: Array, labels: Array) -> tuple[float, Array]:
        section, n = self.block["objective"], len(labels)
        right = np.eye(10)[labels]
        softmax = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True) if outputs.max() < 700 else np.zeros(0)
        if section["loss"] == "cross-entropy":
            return float(-(right * np.log(softmax)).sum() / n), (softmax - right) / n
        if section["loss"] == "mse":
            targets = np.where(right > 0, section["on"], section["off"])
            if self.block["network"]["output"] == "squashed":
                return float(((outputs - targets) ** 2).sum() / n), 2 * (outputs - targets) / n
            at_softmax = 2 * (softmax - targets) / n
            gradient = softmax * (at_softmax - (at_softmax * softmax).sum(1, keepdims=True))
            return float(((softmax - targets) ** 2).sum() / n), gradient
        penalties = section["factor"] * outputs
        loss, at_penalties = (right * penalties).sum(1), right.copy()
        if section["loss"] == "map":
            total = np.exp(-section["j"]) + np.exp(-penalties).sum(1)
            loss = loss + np.log(total)
            at_penalties -= np.exp(-penalties) / total[:, None]
        return float(loss.mean()), section["factor"] * at_penalties / n
