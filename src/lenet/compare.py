"""Stage compare: all runs → the variants' summary, figures and a report that opens from disk."""

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.numpy import load_file

from lenet import figures, lifetime, summary, tracking
from lenet.config import Params
from lenet.errors import InputError
from lenet.evaluate import confusion
from lenet.files import whole, write_json, write_text
from lenet.record import Record
from lenet.results import cells

HARDEST = 36  # digits shown


@dataclass(frozen=True)
class Run:
    """What the comparison needs of one run."""

    record: Record
    history: pd.DataFrame
    predictions: pd.DataFrame
    missed: dict[int, np.ndarray]  # index in the MNIST test file → image (28, 28)

    @property
    def misses(self) -> int:
        return int((self.predictions["answer"] != self.predictions["label"]).sum())

    @property
    def error(self) -> float:
        return self.misses / len(self.predictions)


def compare(params: Params, runs: Path, summary_out: Path, reports: Path, track: bool) -> None:
    """Compare all runs of ``compare`` × ``seeds`` and write the summary and the report.

    Args:
        params: which variants and seeds.
        runs: the folder that holds a folder per run.
        summary_out: where the variants' means go.
        reports: the folder for comparison.json, comparison.html and the figures.
        track: tag the compared runs in MLflow as the current ones.

    Raises:
        InputError: a run is missing or faulty.
    """
    by_variant = {name: [read(runs / f"{name}-{seed}") for seed in params.seeds] for name in params.compare}
    content: dict[str, Any] = {"variants": {name: describe(group) for name, group in by_variant.items()}}
    content["hardest"] = hardest(by_variant)
    lifetime.check()
    write_json(summary_out, summarise(content))
    write_json(reports / "comparison.json", content)
    pictures = _draw(by_variant, content["hardest"])
    for name, figure in pictures.items():
        with whole(reports / f"{name}.png") as beside:
            figures.save(figure, beside)
    write_text(reports / "comparison.html", _render(content, {name: reports / f"{name}.png" for name in pictures}))
    if track:
        tracking.compared(params, runs, summary_out, reports)


def read(folder: Path) -> Run:
    """Read a run's folder. Raises InputError if a file is missing or faulty."""
    try:
        missed = load_file(folder / "missed.safetensors")
        return Run(
            Record.read(folder / "run.json"),
            pd.read_csv(folder / "history.csv"),
            pd.read_csv(folder / "predictions.csv"),
            dict(zip(missed["index"].tolist(), missed["images"], strict=True)),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: not a whole evaluated run ({error}); `dvc repro` makes it") from None


def describe(group: list[Run]) -> dict[str, Any]:
    """The runs of one variant: per seed and on average. Standard deviations are the sample's (n − 1)."""
    misses = [run.misses for run in group]
    variant = group[0].record.parameters
    last = [run.history.iloc[-1] for run in group]
    count = len(group[0].predictions)
    description: dict[str, Any] = {
        "seeds": {str(run.record.seed): {"misses": run.misses, "error": run.error} for run in group},
        "misses": float(np.mean(misses)),
        "count": count,
        "test_error": float(np.mean(misses)) / count,
        "test_error_sd": float(np.std(misses, ddof=1)) / count if len(misses) > 1 else None,
        "network": summary.totals(variant.network),
        "what": summary.what(variant),
        "confusion": np.sum([_confusion(run) for run in group], axis=0).tolist(),
    }
    if "validation/error" in last[0]:
        description["validation_error"] = float(np.mean([row["validation/error"] for row in last]))
    return description


def summarise(content: dict[str, Any]) -> dict[str, Any]:
    """The few numbers a variant that `dvc metrics` and `dvc exp show` list.

    None may be called "error": DVC takes a metric of that name for a failure to read the file.
    """
    names = ("misses", "test_error", "test_error_sd", "validation_error")
    return {
        variant: {name: found[name] for name in names if found.get(name) is not None}
        for variant, found in content["variants"].items()
    }


def hardest(by_variant: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """The digits that most runs miss, with each variant's most frequent answer; ties in file order."""
    runs = [run for group in by_variant.values() for run in group]
    missed = Counter(index for run in runs for index in run.missed)
    found = []
    for index, count in sorted(missed.items(), key=lambda item: (-item[1], item[0]))[:HARDEST]:
        answers = {}
        for variant, group in by_variant.items():
            given = Counter(int(run.predictions["answer"][index]) for run in group)
            answers[variant] = given.most_common(1)[0][0]
        label = int(runs[0].predictions["label"][index])
        found.append({"index": index, "label": label, "missed_by": count, "of": len(runs), "answers": answers})
    return found


def _draw(by_variant: dict[str, list[Run]], hard: list[dict[str, Any]]) -> dict[str, Any]:
    images = {index: image for group in by_variant.values() for run in group for index, image in run.missed.items()}
    confusions = [
        (f"{name}\nmean of {len(group)} seeds", np.mean([_confusion(run) for run in group], axis=0))
        for name, group in by_variant.items()
    ]
    captions = [
        f"#{one['index']}: {one['label']}\n{' · '.join(str(a) for a in one['answers'].values())}\n"
        f"{one['missed_by']} of {one['of']}"
        for one in hard
    ]
    shown = np.array([images[one["index"]] for one in hard]) if hard else np.zeros((0, 28, 28))
    return {
        "learning-curves": figures.error_curves(
            {name: [run.history.to_dict("records") for run in group] for name, group in by_variant.items()}
        ),
        "confusion": figures.confusion(confusions),
        "hardest": figures.gallery(shown, captions),
    }


def _confusion(run: Run) -> np.ndarray:
    return confusion(run.predictions["answer"].to_numpy(), run.predictions["label"].to_numpy())


def _render(content: dict[str, Any], pictures: dict[str, Path]) -> str:
    environment = Environment(
        loader=PackageLoader("lenet", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    inline = {
        name: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()
    }
    rows = [(name, found["what"], *cells(found)) for name, found in content["variants"].items()]
    return environment.get_template("comparison.html").render(rows=rows, pictures=inline, **content)
