"""Optimizers and learning-rate schedules by their names in params.yaml."""

from collections.abc import Callable, Iterable, Mapping
from math import cos, pi

import torch
from torch import Tensor, nn

from lenet.config import (
    SGD,
    Adam,
    ConstantSchedule,
    CosineSchedule,
    DiagonalLevenbergMarquardt,
    StepSchedule,
)
from lenet.training.levenberg import StochasticDiagonalLM


def build(
    section: SGD | Adam | DiagonalLevenbergMarquardt, parameters: Iterable[nn.Parameter]
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
    return schedule.final + (1 - schedule.final) * (1 + cos(pi * progress)) / 2


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


def _sgd(section: SGD, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=section.lr, momentum=section.momentum, weight_decay=section.weight_decay, fused=True
    )


def _adam(kind: type[torch.optim.Adam]) -> Callable:
    def build(section: Adam, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (section.beta1, section.beta2)
        return kind(parameters, lr=section.lr, betas=betas, weight_decay=section.weight_decay, fused=True)

    return build


def _diagonal(section: DiagonalLevenbergMarquardt, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return StochasticDiagonalLM(parameters, section.lr, section.mu)


OPTIMIZERS: dict[str, Callable] = {
    "sgd": _sgd,
    "adam": _adam(torch.optim.Adam),
    "adamw": _adam(torch.optim.AdamW),
    "diagonal-levenberg-marquardt": _diagonal,
}
