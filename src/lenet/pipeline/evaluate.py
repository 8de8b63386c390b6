"""Stage evaluate: a run's weights on the test digits → its metrics and each digit's answer. The only reader of them."""

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_tensors

from lenet import tracking
from lenet.arithmetic import exact
from lenet.digits.data import load_digits
from lenet.evaluation import recognition, robustness, scoring
from lenet.networks import layer_table
from lenet.runs import readers
from lenet.runtime import processes
from lenet.runtime.errors import FaultyFile, InputError
from lenet.runtime.files import reading, whole, write_json, write_text
from lenet.training import fingerprint


def evaluate(folder: Path, test: Path, out: Path, track: bool) -> None:
    """Test the run in ``folder``: metrics to ``out``; answers, missed digits and robustness to ``folder``.

    Raises:
        InputError: a missing or faulty file, weights that are not the record's, or scores that are not finite.
    """
    with processes.sole_writer(out):
        recogniser = recognition.load(folder)
        record = recogniser.record
        if fingerprint.tensors_sha256(recogniser.network.state_dict()) != record.weights:
            raise FaultyFile(folder / "weights.safetensors", "the weights are not those of run.json")
        digits = load_digits(test)
        try:
            answers = scoring.answer(recogniser, digits)
        except exact.NotFinite as error:
            raise InputError(f"{folder}: {error}; its training diverged") from None
        if not answers.scores.isfinite().all():
            raise InputError(f"{folder}: the network's outputs are not finite; its training diverged")
        history = readers.read(folder / "history.csv", readers.history)
        tested = scoring.test_metrics(answers, digits.labels.long())
        curves = robustness.curves(recogniser, digits)
        epochs = {}
        if (snapshots := folder / "snapshots.safetensors").exists():
            with reading(snapshots):
                passes = load_tensors(snapshots)
            epochs = {"epochs": {"misses": scoring.misses(recogniser, passes, digits)}}
        processes.check()
        write_text(folder / "predictions.csv", scoring.to_csv(answers, digits))
        missed = np.flatnonzero(answers.decided != digits.labels)
        with whole(folder / "missed.safetensors") as beside:
            save_file({"images": digits.images[missed].numpy(), "index": digits.index[missed].numpy()}, beside)
        write_json(folder / "robustness.json", curves)
        write_json(
            out,
            {
                "variant": record.variant,
                "seed": record.seed,
                "run": record.fingerprints,
                "digits": {
                    "trained_on": record.parameters.train_size,
                    "held_out": record.parameters.validation_size,
                },
                "test": tested,
                **_validation(history),
                **epochs,
                "robustness": {name: scoring.by_level(curve) for name, curve in curves.items()},
                "network": layer_table.totals(record.parameters.network),
            },
        )
        if track:
            tracking.evaluated(record, folder, out)


def _validation(history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The last epoch's validation part; nothing where no digits were held out."""
    last = history.iloc[-1]
    found = {name: float(last[f"validation/{name}"]) for name in ("loss", "error") if f"validation/{name}" in last}
    return {"validation": found} if found else {}
