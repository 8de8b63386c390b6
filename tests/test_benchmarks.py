"""The benchmark suite: its arithmetic, its report, and that it warns without failing."""

import json
import shutil
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import online, plain, report, suite, sweeps, training
from benchmarks.__main__ import main, plan
from benchmarks.suite import Group, Results, Row
from conftest import ROOT, run
from lenet import networks
from lenet.arithmetic import exact
from lenet.digits.data import Digits, to_inputs
from lenet.networks import lenet5
from lenet.params.schema import Params
from lenet.training import objective, optimizer

pytestmark = pytest.mark.usefixtures("unsigned")
KEPT = ROOT / "benchmarks" / "results.json"


def test_a_ratio_is_the_median_over_paired_repetitions() -> None:
    speeds = Group("g", "images/s", [Row("ours", [20.0, 10.0, 30.0]), Row("other", [10.0, 2.0, 10.0])])
    assert speeds.ratio(speeds.rows[1]) == 3.0  # 2, 5, 3
    times = Group("g", "s", [Row("ours", [1.0, 2.0, 1.0]), Row("other", [4.0, 4.0, 3.0])])
    assert times.ratio(times.rows[1]) == 3.0  # 4, 2, 3: ours is as many times as fast


def test_a_loss_beyond_noise_is_named_and_a_gain_is_not() -> None:
    def sitting(ratio: float) -> Results:
        return Results({}, [Group("g", "images/s", [Row("ours", [ratio]), Row("other", [1.0])])])

    assert suite.losses(sitting(2.0), sitting(2.2)) == []
    assert suite.losses(sitting(3.0), sitting(2.0)) == []
    assert suite.losses(sitting(1.0), sitting(2.0)) == ["g: ours ÷ other is 1.00, was 2.00"]
    assert suite.losses(sitting(1.0), Results({}, [])) == []


def test_a_way_stands_beside_its_baseline_with_its_target() -> None:
    rows = [Row("ours", [20.0, 10.0, 30.0], "", "plain", 2.5), Row("plain", [10.0, 2.0, 10.0])]
    speeds = Group("g", "images/s", rows)
    assert speeds.verdict(rows[0]) == "3.00 × plain, target ≥ 2.5: met"  # 2, 5, 3
    assert speeds.verdict(rows[1]) == ""
    part = Row("signature", [2.0], "in all", "training", 0.05)
    times = Group("g", "s", [Row("training", [25.0]), part])
    assert "| 0.08 × training, target ≤ 0.05: missed; in all |" in report.markdown(Results({}, [times]))
    less = Group("g", "s", [Row("training", [25.0]), Row("signature", [1.0], "", "training", 0.05)])
    (line,) = suite.losses(Results({}, [times]), Results({}, [less]))
    assert line == "g: signature ÷ training is 0.08, was 0.04"
    assert suite.losses(Results({}, [less]), Results({}, [times])) == []
    alone = Group("g", "s", [Row("signature", [1.0], "", "training", 0.05)])
    assert alone.verdict(alone.rows[0]) == ""


def test_floating_point_operations_worked_out_by_hand(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    macs = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 150 + 400 * 120 + 120 * 84 + 840
    assert training.flops("modern") == 2 * (3 * macs - 6 * 28 * 28 * 25)
    assert training.flops("original-tanh") == 2 * (3 * (macs - 36 * 25 * 100) - 6 * 28 * 28 * 25)  # 60 kernels of 96


def test_the_timeline_shows_what_runs_side_by_side() -> None:
    stages = [{"stage": "a", "start": 0, "end": 5}, {"stage": "b", "start": 0, "end": 10}]
    first, second = report.timeline(Results({}, [], stages)).splitlines()
    assert first.count("█") * 2 == second.count("█") == report.WIDTH


def test_results_survive_the_file(tmp_path: Path) -> None:
    results = Results(
        {"cores": 2}, [Group("g", "s", [Row("a", [1.0], "note")])], [{"stage": "x", "start": 0, "end": 1}]
    )
    results.write(tmp_path / "r.json")
    assert suite.read(tmp_path / "r.json") == results
    results.merge(Results({"cores": 4}, [Group("g", "s", [Row("a", [2.0])]), Group("h", "s", [])]))
    assert [(group.name, [row.values for row in group.rows]) for group in results.groups] == [("g", [[2.0]]), ("h", [])]
    assert results.timeline


def test_the_document_shows_the_kept_results() -> None:
    assert report.markdown(suite.read(KEPT)) in (ROOT / report.DOCUMENT).read_text()


def test_every_group_of_the_plan_was_kept(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    kept, planned = {group.name for group in suite.read(KEPT).groups}, set(plan())
    assert {name.partition(": ")[0] for name in planned} <= {name.partition(": ")[0] for name in kept}
    assert {name for name in kept if name.startswith("training: ")} <= planned


PARAMETERS = {"original-sigmoid": 60_850, "original-tanh": 60_850, "lecun1998": 60_000, "modern": 61_706}


def close(ours: torch.Tensor, theirs: torch.Tensor, most: float = 1e-4) -> bool:
    """Whether results differ by less than a part of their largest magnitude."""
    return float((ours - theirs).detach().abs().max()) < most * float(theirs.detach().abs().max())


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_plain_network_is_the_same_function_with_the_same_gradients(
    name: str, params: Params, digits: Digits, monkeypatch
) -> None:
    variant = params.variant(name)
    theirs, inputs = plain.build(variant, 7), to_inputs(digits[:64].images, variant.pixels)
    labels, scores = digits[:64].labels.long(), theirs(inputs)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == PARAMETERS[name]
    start = networks.build(variant.network).initialise(variant.initialisation, 7)
    assert all(map(torch.equal, start.parameters(), theirs.parameters()))
    assert close(start(inputs), scores, 1e-3)
    monkeypatch.setitem(lenet5.LEAST, "relu", exact.SMALLEST)  # ReLU's common grid is coarser than single precision
    ours = networks.build(variant.network)
    ours.load_state_dict(theirs.state_dict())
    assert close(ours(inputs), scores)
    losses = objective.build(variant).loss(ours(inputs), labels), plain.loss(variant)(scores, labels)
    assert close(*losses)
    gradients = (
        torch.autograd.grad(loss, list(network.parameters()))
        for loss, network in zip(losses, (ours, theirs), strict=True)
    )
    assert all(map(close, *gradients))


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        {"kind": "adam", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01},
        {"kind": "adamw", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01},
    ],
)
def test_the_plain_optimizer_takes_the_same_steps(params: Params, section: dict) -> None:
    variant = params.variant("modern")
    variant = type(variant).model_validate(variant.model_dump(mode="json") | {"optimizer": section})
    one, two = (torch.nn.Parameter(torch.linspace(-1, 1, 12)) for _ in range(2))
    rules = optimizer.build(variant.optimizer, [one]), plain.optimizer(variant, [two])
    for turn in range(3):
        for parameter, rule in zip((one, two), rules, strict=True):
            parameter.grad = torch.linspace(-2, 1, 12).roll(turn)
            rule.step()
    assert close(one.detach(), two.detach())
    assert not close(one.detach(), torch.linspace(-1, 1, 12))


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """Where the suite finds parameters and digits."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.safetensors").symlink_to(prepared / "train.safetensors")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", symlinks=True)
    return tmp_path


def test_it_measures_prints_and_warns_with_status_zero(folder: Path, params: Params, monkeypatch) -> None:
    impossible = Group("latency: modern", "ms", [Row("packaged model, one digit", [1.0]), Row("plain torch", [1e6])])
    Results({}, [impossible]).write(folder / "kept.json")
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, ["latency: modern", "--repetitions", "1", "--against", "kept.json"])
    assert done.exit_code == 0
    assert "| plain torch |" in done.output
    assert "warning: slower than before: latency: modern: packaged model, one digit ÷ plain torch" in done.output
    first = f"there are: training: original-sigmoid, batch {params.variants['original-sigmoid'].batch_size};"
    nothing = CliRunner().invoke(main, ["nothing"])
    assert nothing.exit_code == 2
    assert first in nothing.output


@pytest.mark.parametrize("way", ["ours", "passes", "readable", "bare", "usual"])
def test_every_way_trains(folder: Path, monkeypatch, capfd, way: str) -> None:
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.setenv(name, "")  # so that they are taken back, which the way sets for its process
    training.some.cache_clear()
    training._store.cache_clear()
    assert getattr(training, way)("modern", 64, 128) > 0
    assert "goes on without its MLflow record" not in capfd.readouterr().err


def test_the_readable_module_trains_under_lightnings_defaults(folder: Path) -> None:
    way = "from benchmarks import training; print(training.readable_usual('modern', 64, 128))"
    assert float(run(sys.executable, "-c", way, cwd=folder, PYTHONPATH=f"{ROOT}:{ROOT / 'src'}").stdout) > 0


@pytest.mark.skipif(not online.COMPILER, reason="no C compiler")
def test_the_loops_in_c_make_the_same_updates(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    start = online.ready(40)
    start = replace(start, variant=start.variant.model_copy(update={"objective": online.HALF}))
    other = replace(start, network=deepcopy(start.network))
    plain_torch = online.by_autograd(start)
    ours, theirs = online.by_passes(start), online.in_c()(other)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain_torch, theirs, rtol=1e-3, atol=1e-3)
    for one, two in zip(start.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_sizes_and_memory_come_from_a_process_of_their_own(folder: Path) -> None:
    done = run(sys.executable, "-m", "benchmarks.costs", "640", cwd=folder, PYTHONPATH=str(ROOT))
    seconds, megabytes = json.loads(done.stdout)
    assert 0 < seconds < 60
    assert 100 < megabytes < 1200


TINY = {"train_size": 64, "validation_size": 100, "epochs": 4}


def test_pruning_is_measured_on_the_same_trials(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    ways = sweeps.arms({"pruner": {"kind": "successive-halving", "first": 1, "keep": 2}})
    halving = {"batch": 2, "sampler": {"kind": "tpe", "startup": 2}}
    found = {
        name: sweeps.study(sweeps._params({**halving, "trials": 6, "seed": 1, **changes}, TINY))
        for name, changes in ways.items()
    }
    assert [study.epochs == 6 * 4 for study in found.values()] == [True, False, True, False]
    assert {str([trial.params for trial in study.trials[:2]]) for study in found.values()} == {
        str([trial.params for trial in found["TPE, pruned"].trials[:2]])
    }
    random = [study for name, study in found.items() if name.startswith("random")]
    assert [trial.params for trial in random[0].trials] == [trial.params for trial in random[1].trials]
    for whole, pruned in zip(random[0].trials, random[1].trials, strict=True):
        assert pruned.intermediate_values.items() <= whole.intermediate_values.items()


def test_studies_run_in_the_project_s_own_settings(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sweeps, "SMALL", TINY)
    monkeypatch.setattr(sweeps, "TRIALS", 2)
    assert [epochs for epochs, _ in sweeps.course({}, 1)] == [4, 4]


def test_epochs_and_errors_of_paired_studies_worked_out_by_hand() -> None:
    whole, better = [(12, 0.05), (12, 0.03), (12, 0.02)], [(12, 0.06), (12, 0.04), (12, 0.03)]
    pruned, worse = [(12, 0.05), (3, None), (9, 0.024)], [(12, 0.06), (1, None), (1, None)]
    found = {"TPE, no pruning": [whole, better], "TPE, pruned": [pruned, worse]}
    epochs, errors = sweeps.as_groups(
        found | {name.replace("TPE", "random search"): s for name, s in found.items()}
    ).groups
    assert [row.values for row in epochs.rows[:2]] == [[36, 36], [24, 14]]
    assert epochs.ratio(epochs.rows[1]) == (24 / 36 + 14 / 36) / 2
    rows = {row.name: row for row in errors.rows}
    assert rows["TPE, no pruning"].values == pytest.approx([2, 3])
    assert rows["TPE, pruned"].values == pytest.approx([2.4, 6])
    assert rows["TPE, pruned"].note == "+1.70 ± 1.30 points"  # 0.4 and 3
    assert rows["TPE, no pruning, as many epochs as pruned"].values == pytest.approx([3, 6])
    assert rows["TPE, no pruning, as many epochs as pruned"].note == "+0.30 ± 0.30 points from TPE, pruned"  # 0.6 and 0
    assert sweeps.difference([3.0], [3.5]) == "−0.50 points"


@pytest.mark.slow
def test_the_real_command_is_timed_with_one_worker_and_two(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sweeps, "SHORT", TINY)
    monkeypatch.setattr(sweeps, "TRIALS", 3)
    group = sweeps.workers(1)
    assert [(row.name, len(row.values)) for row in group.rows] == [("2 workers", 1), ("1 worker", 1)]
    assert all(60 < row.median < 3 * 3600 for row in group.rows)
    assert group.ratio(group.rows[1]) == group.rows[0].median / group.rows[1].median
