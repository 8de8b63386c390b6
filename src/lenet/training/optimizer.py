"""Optimizers and learning-rate schedules by their names in params.yaml."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from lenet.arithmetic import functions
from lenet.arithmetic.scalars import cosine_of_half_turns, whole_power
from lenet.params import schema
from lenet.params.schema import ConstantSchedule, CosineSchedule, DiagonalLevenbergMarquardt, StepSchedule


def build(
    section: schema.SGD | schema.Adam | DiagonalLevenbergMarquardt, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer of a variant's block."""
    return OPTIMIZERS[section.kind](section, parameters)


def factor(schedule: ConstantSchedule | CosineSchedule | StepSchedule, epoch: int, epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch (from 1)."""
    if isinstance(schedule, StepSchedule):
        factors = [step.factor for step in schedule.steps for _ in range(step.epochs)]
        return factors[epoch - 1]
    if isinstance(schedule, ConstantSchedule) or epochs == 1:
        return 1.0
    progress = (epoch - 1) / (epochs - 1)
    return schedule.final + (1 - schedule.final) * (1 + cosine_of_half_turns(progress)) / 2


def memory(rule: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of past steps, as ``<parameter's number>.<name>``."""
    state = rule.state_dict()["state"]
    return {
        f"{i}.{name}": value for i, found in state.items() for name, value in found.items() if isinstance(value, Tensor)
    }


def restore(rule: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the memory of another one of the same kind."""
    state: dict[int, dict[str, Tensor]] = {}
    for place, tensor in tensors.items():
        i, name = place.split(".")
        state.setdefault(int(i), {})[name] = tensor
    rule.load_state_dict(rule.state_dict() | {"state": state})


class Rule(torch.optim.Optimizer):
    """An optimizer made of single operations; torch's own may round a multiplication and an addition as one."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step along the gradients; return what the closure that computes them returns."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group, self.state[parameter])
        return loss

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Move a parameter, in place. ``gradient`` stays as it is."""
        raise NotImplementedError


class SGD(Rule):
    """Stochastic gradient descent: v ← momentum · v + g and θ ← θ − lr · v, with g the gradient + weight_decay · θ."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        step = gradient
        if group["weight_decay"]:
            step = step + parameter * group["weight_decay"]
        if group["momentum"]:
            if not state:
                state["velocity"] = torch.zeros_like(parameter)
            step = cut_(state["velocity"].mul_(group["momentum"]).add_(step))
        parameter.sub_(step * group["lr"])


class Adam(Rule):
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019), whose decay acts on the weights themselves."""

    EPSILON = 1e-8

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        apart: bool,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "apart": apart})

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        beta1, beta2 = group["betas"]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = torch.zeros((), dtype=torch.int64)
        steps = int(state["step"].add_(1))
        if group["weight_decay"] and group["apart"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        elif group["weight_decay"]:
            gradient = gradient + parameter * group["weight_decay"]
        part = gradient * (1 - beta1)
        mean = cut_(state["mean"].mul_(beta1).add_(part))
        square = cut_(state["square"].mul_(beta2).add_(torch.mul(gradient, gradient, out=part).mul_(1 - beta2)))
        root = functions.sqrt(square).mul_(1 / math.sqrt(1 - whole_power(beta2, steps))).add_(self.EPSILON)
        step = torch.mul(mean, group["lr"] / (1 - whole_power(beta1, steps)), out=part)
        parameter.sub_(step.div_(root))


class StochasticDiagonalLM(Rule):
    """θ ← θ − lr / (mu + h) · gradient, for every parameter (LeCun 1998, eq. 18 and 19).

    Args:
        parameters: what is optimized.
        lr: the global learning rate η.
        mu: keeps steps bounded where the curvature is small.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, mu: float) -> None:
        super().__init__(parameters, {"lr": lr, "mu": mu})
        self._sizes: dict[Tensor, tuple[Tensor, float, Tensor]] = {}  # what steps were made from, and they

    def set_curvatures(self, found: Iterable[Tensor]) -> None:
        """Take the second derivatives h ≥ 0, shaped as the parameters and in their order, until they are set again."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._sizes.clear()
        for parameter, curvature in zip(parameters, found, strict=True):
            self.state[parameter]["curvature"] = curvature

    def step_sizes(self) -> list[Tensor]:
        """Each parameter's lr / (mu + h). Raises KeyError before curvatures are set."""
        return [
            _step_size(self.state[parameter]["curvature"], group["lr"], group["mu"])
            for group in self.param_groups
            for parameter in group["params"]
        ]

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        curvature, lr = state["curvature"], group["lr"]
        known = self._sizes.get(parameter)
        if known is None or known[0] is not curvature or known[1] != lr:
            known = self._sizes[parameter] = curvature, lr, _step_size(curvature, lr, group["mu"])
        parameter.sub_(gradient * known[2])


def _step_size(curvature: Tensor, lr: float, mu: float) -> Tensor:
    return torch.div(curvature.new_tensor(lr), curvature + mu)


def cut_(x: Tensor) -> Tensor:
    """Put 0, in place, where a magnitude is 2^−100 or less.

    What decays would reach the subnormal numbers, which are slow, and 0 on processors that are told to flush them.
    """
    return torch.hardshrink(x, 2.0**-100, out=x)


def _sgd(section: schema.SGD, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return SGD(parameters, section.lr, section.momentum, section.weight_decay)


def _adam(section: schema.Adam, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    apart = section.kind == "adamw"
    return Adam(parameters, section.lr, (section.beta1, section.beta2), section.weight_decay, apart)


def _diagonal(section: DiagonalLevenbergMarquardt, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return StochasticDiagonalLM(parameters, section.lr, section.mu)


OPTIMIZERS: dict[str, Callable] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "diagonal-levenberg-marquardt": _diagonal,
}
