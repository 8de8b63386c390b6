"""A few updates of one variant of each kind of network, and digests of all that comes of them, as JSON.

Run by tests as a program, on other processors and with other settings: it imports what trainings compute with, and no
Lightning, MLflow or DVC. Usage: probe.py DIGITS [--threads N] [--device cuda]
"""

import argparse
import hashlib
import json
import platform
from pathlib import Path

import torch
from torch import Tensor

from lenet import config, networks
from lenet.digits.data import Digits, load_digits
from lenet.digits.presentation import present
from lenet.networks import online
from lenet.training import levenberg, objective, optimizer

VARIANTS = ("original-sigmoid", "original-tanh", "modern", "frontier-distorted", "lecun1998-distorted")
SEED = 7
UPDATES = 3
PARAMS = Path(__file__).parents[1] / "params.yaml"


def sha256(*tensors: Tensor) -> str:
    """Of the tensors' bytes, one after another."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def learn(variant: config.Variant, digits: Digits) -> dict[str, str]:
    """Train on a few digits, in one epoch of UPDATES updates with a smaller last batch; digests by name."""
    network = networks.build(variant.network).initialise(variant.initialisation, SEED)
    rule = optimizer.build(variant.optimizer, network.parameters())
    its = objective.build(variant)
    presented = present(variant, SEED, digits, 2)
    found = {"start": sha256(*network.parameters()), "inputs": sha256(presented.inputs(slice(0, len(digits))))}
    if online.fits(variant):
        some = presented.inputs(slice(0, 8))
        curvatures = levenberg.curvatures(
            network, some, presented.labels(slice(0, 8)), variant.objective, variant.optimizer.criterion
        )
        rule.set_curvatures(curvatures)
        found["curvatures"] = sha256(*curvatures)
        part = slice(0, UPDATES)
        scores = online.OnLine(network, variant.objective).updates(presented.inputs(part), presented.labels(part), rule)
        found["scores"] = sha256(scores)
    else:
        size = -(-len(digits) // UPDATES)
        answers = []
        for start in range(0, len(digits), size):
            part = slice(start, min(start + size, len(digits)))
            labels = presented.labels(part)
            passes = networks.passes(network, len(labels))
            presented.inputs(part, out=passes.inputs)
            scores = passes.forward()
            loss, gradient = its.loss_and_gradient(scores, labels)
            passes.backward(gradient)
            rule.step()
            answers += [loss, scores]
        found["scores"] = sha256(*answers)
    found["weights"] = sha256(*network.state_dict().values())
    found["answers"] = sha256(networks.outputs(network, digits.images, variant.pixels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("digits", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    digits, blocks = load_digits(given.digits), config.load(PARAMS).variants
    found = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "digests": {name: learn(blocks[name], digits) for name in VARIANTS},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
