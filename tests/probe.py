"""What this machine makes of one variant of each kind of network: digests of a few updates of a few digits, as JSON.

Tests run it as a program, with other settings, on other processors and devices. It imports what trainings compute with,
and neither Lightning nor MLflow nor DVC. Usage: probe.py DIGITS [--threads N] [--device NAME]
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lenet import networks
from lenet.arithmetic import conformance
from lenet.digits.data import Digits, load_digits, shuffled, to_inputs
from lenet.digits.epochs import present
from lenet.evaluation import robustness
from lenet.networks import fast
from lenet.params import loading, schema
from lenet.params.schema import DiagonalLevenbergMarquardt, Variant
from lenet.training import levenberg, objective, optimizer

VARIANTS = ("original-sigmoid", "original-tanh", "modern", "frontier-distorted", "lecun1998-distorted")
SEED, EPOCH = 7, 2
UPDATES = 3
PARAMS = Path(__file__).parents[1] / "params.yaml"


def main() -> None:
    """Print the digests, and where they are from."""
    parser = argparse.ArgumentParser()
    parser.add_argument("digits", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    digits, blocks = load_digits(given.digits), loading.load(PARAMS).variants
    found = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "faults": conformance.faults(),
        "digests": {name: Probe(blocks[name], digits, given.device).digests() for name in VARIANTS}
        | {"disturbances": disturbances(digits[:8], blocks["modern"])},
    }
    print(json.dumps(found))


class Probe:
    """The first updates of an epoch of a variant.

    Args:
        variant: the block.
        digits: all that there are; they make UPDATES batches, or give one each to UPDATES on-line updates.
        device: where the readable network is; the fast passes are for the CPU.
    """

    def __init__(self, variant: Variant, digits: Digits, device: str) -> None:
        self.variant, self.digits, self.device = variant, digits, device
        self.objective = objective.build(variant)
        self.presented = present(variant, SEED, digits, EPOCH)
        size = min(variant.batch_size, -(-len(digits) // UPDATES))
        self.parts = [slice(at, min(at + size, len(digits))) for at in range(0, UPDATES * size, size)]

    def digests(self) -> dict[str, str]:
        """By name; both ways of computing the network learn the same."""
        variant, network, again = self.variant, self.network().to(self.device), self.network()
        rates = [optimizer.factor(variant.schedule, epoch, variant.epochs) for epoch in range(1, variant.epochs + 1)]
        found = {
            "initial": sha256(*network.parameters()),
            "rates": hashlib.sha256(repr(rates).encode()).hexdigest(),
            "order": sha256(shuffled(schema.TRAINING_DIGITS, SEED, EPOCH)),
            "inputs": sha256(self.presented.inputs(slice(0, len(self.digits)))),
            "objective": sha256(*self.at_scores()),
            "scores": sha256(*self.readable_updates(network)),
            "weights": sha256(*network.state_dict().values()),
        }
        assert found["scores"] == sha256(*self.fast_updates(again)), "the fast passes' scores are others"
        assert found["weights"] == sha256(*again.state_dict().values()), "the fast passes' weights are others"
        with networks.in_use(network):
            in_use = network(to_inputs(self.digits.images, variant.pixels).to(self.device))
        assert sha256(in_use) == sha256(networks.outputs(again, self.digits.images, variant.pixels))
        return found | {"answers": sha256(in_use)}

    def at_scores(self) -> Iterator[Tensor]:
        """Losses and their gradient at scores as only long trainings have them."""
        labels = self.presented.labels(slice(0, len(self.digits)))
        scores = torch.rand(len(labels), 10, generator=torch.Generator().manual_seed(SEED)) * 16
        scores, labels = scores.to(self.device), labels.to(self.device)
        yield from (self.objective.losses(scores, labels), self.objective.gradient(scores, labels, len(labels)))

    def network(self) -> networks.AnyNet:
        """It before the first update."""
        return networks.build(self.variant.network).initialise(self.variant.initialisation, SEED)

    def readable_updates(self, network: networks.AnyNet) -> Iterator[Tensor]:
        """Learn, by autograd; each update's scores and loss."""
        rule = optimizer.build(self.variant.optimizer, network.parameters())
        if isinstance(rule, optimizer.StochasticDiagonalLM):
            found = self.curvatures(network)
            rule.set_curvatures(found)
        for part in self.parts:
            labels = self.presented.labels(part).to(self.device)
            scores = network(self.presented.inputs(part).to(self.device))
            loss = self.objective.loss(scores, labels)
            rule.zero_grad()
            loss.backward()
            rule.step()
            yield from (scores, loss)

    def fast_updates(self, network: networks.AnyNet) -> Iterator[Tensor]:
        """The same by hand-written passes."""
        flat = fast.Flat([network])
        rule = optimizer.build(self.variant.optimizer, [flat.matrix])
        if isinstance(rule, optimizer.StochasticDiagonalLM):
            rule.set_curvatures([torch.cat([its.flatten() for its in self.curvatures(network)])[None]])
        for part in self.parts:
            labels = self.presented.labels(part)
            passes = networks.passes([network], len(labels), flat)
            passes.inputs[0] = self.presented.inputs(part)
            (scores,) = passes.forward()
            passes.backward(self.objective.gradient(scores, labels, len(labels))[None])
            rule.step()
            yield from (scores, self.objective.loss(scores, labels))

    def curvatures(self, network: networks.AnyNet) -> list[Tensor]:
        """The second derivatives at the start."""
        section: Any = self.variant.optimizer
        assert isinstance(section, DiagonalLevenbergMarquardt)
        some = slice(0, 8)
        inputs, labels = self.presented.inputs(some), self.presented.labels(some)
        device = next(network.parameters()).device
        return levenberg.curvatures(
            network, inputs.to(device), labels.to(device), self.variant.objective, section.criterion
        )


def disturbances(digits: Digits, variant: Variant) -> dict[str, str]:
    """The digits as robustness is measured on them, at all levels."""
    fields = to_inputs(digits.images, variant.pixels)
    return {
        name: sha256(*(kind.apply(fields, level, digits.index, variant.pixels) for level in kind.levels))
        for name, kind in robustness.DISTURBANCES.items()
    }


def sha256(*tensors: Tensor) -> str:
    """Of the tensors' bytes, one after another."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
