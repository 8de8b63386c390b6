"""Images per second of training, ours and others' ways, each on one core."""

import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import plain
from lenet import THREADS, networks, tracking
from lenet.digits.data import Digits, load_digits, shuffled, to_inputs
from lenet.digits.datamodule import DigitsModule
from lenet.evaluation import recognition
from lenet.inference import model as packaged
from lenet.networks import layer_table
from lenet.params import loading
from lenet.params.schema import Variant
from lenet.runs.record import Record, Row
from lenet.training import fingerprint, objective, optimizer, signature
from lenet.training.checkpoint import Checkpoints
from lenet.training.fast_module import FastLeNet, Training
from lenet.training.fit import Fitted, fit, fit_all, write
from lenet.training.module import LeNet

DIGITS = 12_800  # of a repetition, so that the batches of all sizes are full
DATA = Path("data/train.safetensors")


def block(name: str, batch_size: int, digits: int = DIGITS, epochs: int = 1) -> Variant:
    """A variant's block for a measurement."""
    sizes = {"batch_size": batch_size, "epochs": epochs, "train_size": digits, "validation_size": 0}
    return loading.load().variant(name).model_copy(update=sizes)


@cache
def some(count: int) -> Digits:
    """So many training digits, the 60,000 again and again."""
    torch.set_num_threads(THREADS)
    digits = load_digits(DATA)
    again = torch.arange(count) % len(digits)
    return digits[:count] if count <= len(digits) else Digits(digits.images[again], digits.labels[again], again)


class Clock(pl.Callback):
    """Seconds from the first batch to the end, the epochs' records included."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


@cache
def _store() -> None:
    folder = tempfile.mkdtemp()
    os.environ["DVC_ROOT"] = folder  # journals, too, go there
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    tracking.open_store()


def ours(
    name: str, batch_size: int, digits: int = DIGITS, epochs: int = 1, track: bool = True, seeds: int = 1
) -> float:
    """The path of the train stage: trainings side by side inside their MLflow runs; images/s of all of them."""
    _store()
    clock, variant, trainings = Clock(), block(name, batch_size, digits, epochs), []
    with ExitStack() as stack:
        for seed in range(1, seeds + 1):
            record = Record("benchmark", seed, variant, key=f"{time.time_ns():x}", data="", signature="")
            run = stack.enter_context(tracking.training(record, "lenet5" if track else None))
            trainings.append(Training(variant, seed, digits, [run.row]))
        for _ in fit_all(variant, trainings, some(digits), some(digits)[:0], [clock]):
            pass
    return seeds * epochs * digits / clock.seconds


def passes(name: str, batch_size: int, digits: int = DIGITS, epochs: int = 1) -> float:
    """Our forward and backward passes in the shortest loop: no Lightning, no trace, no history."""
    variant, data = block(name, batch_size), some(digits)
    network = networks.build(variant.network).initialise(variant.initialisation, 1)
    ours = networks.passes([network], batch_size)
    rule, criterion = optimizer.build(variant.optimizer, [ours.flat.matrix]), objective.build(variant)
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        for batch in shuffled(digits, 1, epoch)[: digits // batch_size * batch_size].split(batch_size):
            to_inputs(data.images[batch], variant.pixels, out=ours.inputs[0])
            ours.backward(criterion.gradient(ours.forward()[0], data.labels[batch].long(), batch_size)[None])
            rule.step()
    return epochs * digits / (time.perf_counter() - start)


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _loop(variant: Variant, network: Callable, loss: Loss, rule: torch.optim.Optimizer) -> float:
    """The shortest loop by autograd: contiguous inputs held ready. Images/s."""
    inputs, labels = _tensors(variant)
    start = time.perf_counter()
    for part in shuffled(len(labels), 1, 1).split(variant.batch_size):
        rule.zero_grad()
        loss(network(inputs[part]), labels[part]).backward()
        rule.step()
    return len(labels) / (time.perf_counter() - start)


def _tensors(variant: Variant) -> tuple[torch.Tensor, torch.Tensor]:
    digits = some(variant.train_size)
    return to_inputs(digits.images, variant.pixels), digits.labels.long()


def readable(name: str, batch_size: int, digits: int = DIGITS) -> float:
    """The readable LightningModule's network, loss and optimizer in a bare loop."""
    variant = block(name, batch_size, digits)
    module = LeNet(variant, 1)
    return _loop(variant, module, module.objective.loss, module.configure_optimizers()["optimizer"])


def readable_usual(name: str, batch_size: int, digits: int = DIGITS) -> float:
    """The readable LightningModule and its digits as a Lightning user trains them, with Lightning's defaults."""
    variant = block(name, batch_size, digits)
    return _with_defaults(LeNet(variant, 1), DigitsModule(variant, 1, some(variant.train_size)), variant)


def bare(name: str, batch_size: int, digits: int = DIGITS) -> float:
    """(a) Plain torch in a bare loop."""
    variant = block(name, batch_size, digits)
    network = plain.build(variant)
    return _loop(variant, network, plain.loss(variant), plain.optimizer(variant, network.parameters()))


@cache
def _compiled(name: str, batch_size: int) -> tuple[plain.LeNet5, Callable, float]:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    network = plain.build(block(name, batch_size))
    made = torch.compile(network)
    start = time.perf_counter()
    made(torch.zeros(batch_size, 1, 32, 32)).sum().backward()
    return network, made, time.perf_counter() - start


def compiled(name: str, batch_size: int) -> float:
    """(c) The same loop with torch.compile, once it has compiled."""
    variant = block(name, batch_size)
    network, made, _ = _compiled(name, batch_size)
    return _loop(variant, made, plain.loss(variant), plain.optimizer(variant, network.parameters()))


def compilation(name: str, batch_size: int) -> float:
    """Seconds that torch.compile took."""
    return _compiled(name, batch_size)[2]


class _Usual(pl.LightningModule):
    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant, self.network, self.loss = variant, plain.build(variant), plain.loss(variant)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        loss = self.loss(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return plain.optimizer(self.variant, self.network.parameters())


def usual(name: str, batch_size: int, digits: int = DIGITS) -> float:
    """(b) What tutorials do: DataLoader over a TensorDataset, Lightning's defaults, the loss logged at each step."""
    variant = block(name, batch_size, digits)
    loader = DataLoader(TensorDataset(*_tensors(variant)), batch_size=batch_size, shuffle=True)
    return _with_defaults(_Usual(variant), loader, variant)


def _with_defaults(module: pl.LightningModule, digits: DataLoader | DigitsModule, variant: Variant) -> float:
    """Images/s of an epoch under a Trainer that is told nothing but that it has one processor."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch, _silence():
        trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[clock], default_root_dir=scratch)
        trainer.fit(module, digits)
    return variant.train_size / clock.seconds


@contextmanager
def _silence() -> Iterator[None]:
    """What Lightning shows and warns of goes nowhere; it takes its time all the same."""
    hidden = io.StringIO()
    with warnings.catch_warnings(), redirect_stderr(hidden), redirect_stdout(hidden):
        warnings.simplefilter("ignore")
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield


def bound(name: str) -> float:
    """(d) Images/s if the network's own arithmetic ran as fast as a product of two 1024×1024 matrices."""
    torch.set_num_threads(THREADS)
    a, b, out = (torch.ones(1024, 1024) for _ in range(3))
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / sorted(seconds)[len(seconds) // 2] / flops(name)


def flops(name: str) -> float:
    """Floating-point operations of forward and backward pass for one image: the weighted inputs' products and sums.

    A pass forward, one back to the weights, and one back to the inputs, which C1 does not need.
    """
    macs = {
        row.name: row.macs for row in layer_table.layers(loading.load().variant(name).network) if row.name[0] != "S"
    }
    return 2 * (3 * sum(macs.values()) - macs["C1"])


def evaluation(name: str, how: str) -> float:
    """Images/s of answering 10,000 training digits, from uint8 images to outputs.

    ``how``: by ``passes``, as everything here does, by the readable ``modules``, or in ``plain`` torch.
    """
    variant, images = loading.load().variant(name), some(10_000).images
    ours = networks.build(variant.network).initialise(variant.initialisation, 1)
    network = plain.build(variant) if how == "plain" else ours
    start = time.perf_counter()
    if how == "passes":
        networks.outputs(ours, images, variant.pixels)
    else:
        with torch.no_grad():
            for part in images.split(networks.EVALUATION_BATCH):
                network(to_inputs(part, variant.pixels))
    return len(images) / (time.perf_counter() - start)


@cache
def _packaged(name: str, how: str) -> Callable:
    variant = loading.load().variant(name)
    if how == "plain":
        theirs = plain.build(variant)
        return lambda images: theirs(to_inputs(torch.as_tensor(images), variant.pixels))
    network = networks.build(variant.network).initialise(variant.initialisation, 1)
    record = Record("benchmark", 1, variant, key="", data="", signature="")
    return packaged.Model(recognition.Recogniser(record, network)).predict


def latency(name: str, how: str) -> float:
    """Milliseconds to recognise one digit."""
    image, recognise = some(1).images.numpy(), _packaged(name, how)
    seconds = []
    with torch.no_grad():
        for _ in range(300):
            start = time.perf_counter()
            recognise(image)
            seconds.append(time.perf_counter() - start)
    return 1000 * sorted(seconds)[len(seconds) // 2]


def saving(name: str) -> float:
    """Milliseconds that a checkpoint takes."""
    variant = block(name, loading.load().variant(name).batch_size, digits=55_000)
    took: list[float] = []

    class Timed(Checkpoints):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            start = time.perf_counter()
            self.save(cast(FastLeNet, pl_module).state())
            took.append(1000 * (time.perf_counter() - start))

    with tempfile.TemporaryDirectory() as folder:
        fit(variant, 1, some(55_000), some(55_000)[:0], callbacks=[Timed(Path(folder), name)])
    return took[-1]


def whole(name: str) -> float:
    """Seconds of all epochs of a training, at the speed of some of its batches."""
    variant = loading.load().variant(name)
    return variant.epochs * variant.train_size / ours(name, variant.batch_size)


def signing(name: str) -> float:
    """Seconds to sign a variant's block."""
    variant, digits = loading.load().variant(name), some(60_000)
    start = time.perf_counter()
    signature.sign(variant, digits)
    return time.perf_counter() - start


def writing(name: str) -> float:
    """Seconds that the end of a training takes: digest, weights, history and trace on disk."""
    variant = block(name, 64, digits=55_000, epochs=10)
    weights = networks.build(variant.network).initialise(variant.initialisation, 1).state_dict()
    row: Row = {"epoch": 1, "learning_rate": 0.1, "train/loss": 1 / 3, "train/error": 1 / 7, "weights.sha256": "0" * 64}
    record = Record("benchmark", 1, variant, key="", data="", signature="")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for _ in range(10):
            fingerprint.tensors_sha256(weights)  # at each epoch's end
        write(Path(folder), record, Fitted(weights, [row] * 10, torch.zeros(10, 860), {}))
        return time.perf_counter() - start
