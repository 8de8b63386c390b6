"""What differs between runs, from MLflow and from committed files alone; and what is not known is said."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from conftest import ROOT, commit, refused, run
from lenet import tracking
from lenet.params.schema import Params
from lenet.pipeline import evaluate
from lenet.pipeline.train import train
from lenet.reproduce import diff
from lenet.reproduce.diff import Section
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_json
from lenet.runtime.screen import Screen
from lenet.tracking import Tracked, recorder
from lenet.training import fingerprint
from test_train import small_params

pytestmark = pytest.mark.usefixtures("unsigned")
MODERN = ROOT / "metrics" / "modern-1.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Git with sources of its own, a store, and runs' outputs that Git does not hold."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src").mkdir()
    (folder / "src" / "recipe.py").write_text("a\nb\nc\n")
    (folder / "src" / "old.py").write_text("old\n")
    shutil.copy(ROOT / "params.yaml", folder)
    run("git", "init", "-q", cwd=folder)
    commit(folder, "start")
    return folder


@pytest.fixture(scope="module")
def trained(project: Path, params: Params, small_digits: Path) -> dict[str, Record]:
    """modern-1; the same with twice the rate, other sources and packages; original-tanh-1, which is not evaluated."""
    params = small_params(params)
    modern = params.variants["modern"]
    faster = modern.model_copy(
        update={"optimizer": modern.optimizer.model_copy(update={"lr": 2 * modern.optimizer.lr})}
    )
    other = params.model_copy(update={"variants": params.variants | {"modern": faster}})
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setattr(recorder, "PATIENCE", 300.0)  # a busy machine's store answers late: not the subject
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
        for label, block, name in (("first", params, "modern"), ("faster", other, "modern"), ("tanh", params, "tanh")):
            name = name.replace("tanh", "original-tanh")
            if label == "faster":
                (project / "src" / "recipe.py").write_text("a\nB\nc\nd\n")
                (project / "src" / "old.py").unlink()
                patch.setattr(fingerprint, "environment", lambda: ["numpy==1.0", "torch==2.13.0"])
            if label == "tanh":
                patch.setattr(fingerprint, "environment", lambda: ["torch==2.13.0"])
            folder = project / label / f"{name}-1"
            train(block, name, {1: folder}, small_digits / "train.safetensors", None, "lenet5")
            if label != "tanh":
                evaluate.evaluate(folder, small_digits / "test.safetensors", project / label / "modern-1.json", True)
            found[label] = Record.read(folder / "run.json")
    return found


def create(client: MlflowClient, key: str, **tags: str) -> Run:
    """A training's run, of v-1 unless its tags say otherwise."""
    return client.create_run("1", tags={"kind": "training", "run.key": key, "variant": "v", "seed": "1"} | tags)


@pytest.fixture
def client(project: Path, trained: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A client on the store, in whose project one stands; what a test adds to it goes."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    client = tracking.open_store()
    known = {one.info.run_id for one in client.search_runs(["1"])}
    yield client
    for one in client.search_runs(["1"]):
        if one.info.run_id not in known:
            client.delete_run(one.info.run_id)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a fresh clone has: no store, no runs. Nothing may be written into it."""
    (tmp_path / "metrics").mkdir()
    for path in (*ROOT.glob("metrics/*.json"), ROOT / "params.yaml"):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    yield tmp_path
    assert listing(tmp_path) == before


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def compared(params: Params, *references: str) -> dict[str, Section]:
    return {section.title: section for section in diff.sections(diff.look_up(references, params))}


def tracked(name: str = "v-1", parameters: dict | None = None, metrics: dict | None = None, **artifacts) -> Tracked:
    contents = {path.replace("__", "/").replace("_", "."): content for path, content in artifacts.items()}
    return Tracked(name, None, parameters or {}, {"run.key": name}, metrics or {}, [], (), contents.get)


def predictions(*answers: int) -> bytes:
    """Answers to digits whose labels are their indices."""
    lines = [f"{index},{index},{answer},0.5\n" for index, answer in enumerate(answers)]
    return ("index,label,answer,output 0\n" + "".join(lines)).encode()


def archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return content.getvalue()


def of(title: str, *runs: Tracked) -> Section:
    return next(one for one in diff.sections({one.name: one for one in runs}) if one.title == title)


# two tracked runs


def test_tracked_runs_differ_by_what_was_changed_and_by_nothing_else(
    client, trained, params: Params, project: Path
) -> None:
    first, faster = (trained[label] for label in ("first", "faster"))
    found = compared(params, first.key, faster.key[:12])
    rate = str(params.variants["modern"].optimizer.lr)
    assert found["parameters"].rows == {"optimizer.lr": [rate, str(2 * float(rate))]}
    identity = found["identity"]
    assert set(identity.rows) == {"run.key", "weights.sha256", "signature", "environment.sha256", "git.dirty"}
    assert identity.rows["run.key"] == [first.key[:12], faster.key[:12]]
    assert identity.rows["git.dirty"] == ["false", "true"]
    assert identity.notes == []
    assert found["code"].rows == {"src/recipe.py": ["+2 -1"], "src/old.py": ["+0 -1 (absent)"]}
    packages = found["environment"].rows
    assert packages["numpy"][1] == "1.0"
    assert packages["pandas"][1] == "–"
    assert "torch" not in packages or "+" in packages["torch"][0]  # a local build label
    metrics, answers = found["metrics"].rows, found["answers"]
    assert not [name for name in metrics if name.startswith("system/") or name == "epoch_seconds"]
    files = [json.loads((project / label / "modern-1.json").read_text()) for label in ("first", "faster")]
    before, after = (content["test"]["misses"] for content in files)
    assert metrics["test/misses"][1] == f"{after} ({after - before:+})"
    count, only, only_other, _, indices = (cells[0] for cells in answers.rows.values())
    assert int(only) - int(only_other) == after - before
    assert int(count) >= int(only) + int(only_other)
    assert "400" in next(iter(answers.rows))
    assert len(indices.split(", ")) == 10
    assert answers.notes == []


def test_three_runs_stand_side_by_side_and_losses_of_two_objectives_are_not_subtracted(
    client, trained, params: Params
) -> None:
    found = compared(params, *(record.key for record in trained.values()))
    metrics = found["metrics"]
    assert metrics.columns[2] == "original-tanh-1"
    first, faster, tanh = metrics.rows["train/loss"]
    assert ["(" in cell for cell in (first, faster, tanh)] == [False, True, False]
    assert "(" in metrics.rows["train/error"][2]
    assert any("different quantities" in note and "original-tanh-1" in note for note in metrics.notes)
    assert "no test results known of original-tanh-1" in metrics.notes
    assert found["answers"].notes == ["no answers to test digits with original-tanh-1"]
    assert len(found["answers"].columns) == 1
    assert all(len(cells) == 2 for cells in found["code"].rows.values())
    assert found["environment"].rows["numpy"][1:] == ["1.0", "–"]


def test_a_run_is_found_by_its_id_its_key_and_as_the_current_one_of_its_name(client, trained, params: Params) -> None:
    ids = {one.data.tags["run.key"]: one.info.run_id for one in client.search_runs(["1"])}
    for record in trained.values():
        for reference in (ids[record.key], ids[record.key][:10], record.key, record.key[:8]):
            assert tracking.lookup(reference, params).id == ids[record.key]
    with pytest.raises(InputError, match="modern-1: no present run of this name"):
        tracking.lookup("modern-1", params)
    for label in ("faster", "first"):
        tracking.mark_current(frozenset({("modern-1", trained[label].key)}))
        assert tracking.lookup("modern-1", params).key == trained[label].key
    tracking.mark_current(frozenset())


def test_of_two_records_of_one_training_the_current_one_is_meant(client, params: Params) -> None:
    for name, current in (("v", "false"), ("twin", "true"), ("w", "false")):
        create(client, "cafecafe9", variant=name, current=current)
    assert tracking.lookup("cafecafe", params).name == "twin-1"


def test_runs_of_one_name_are_labelled_apart(clone: Path, params: Params) -> None:
    content = json.loads(MODERN.read_text())
    keys = [content["run"]["key"], "0" * 64]
    content["run"]["key"] = keys[1]
    write_json(clone / "experiments" / "ladder" / "metrics" / "modern-1.json", content)
    try:
        assert [*diff.look_up(keys, params)] == [f"modern-1 {key[:12]}" for key in keys]
    finally:
        shutil.rmtree(clone / "experiments")


def test_a_tracked_run_is_read_whole(client, trained, params: Params, project: Path) -> None:
    found = tracking.lookup(trained["first"].key, params)
    folder = project / "first" / "modern-1"
    assert found.read("predictions.csv") == (folder / "predictions.csv").read_bytes()
    assert found.read("run.json") == (folder / "run.json").read_bytes()
    assert found.read("source/uncommitted.diff") is None
    assert [row["epoch"] for row in found.history] == [1, 2]
    assert found.history[-1]["weights.sha256"] == trained["first"].weights
    assert found.parameters["optimizer.lr"] == str(params.variants["modern"].optimizer.lr)
    assert found.notes == ()


def test_where_mlflow_lacks_something_files_of_the_same_key_fill_it(
    client, trained, params: Params, project: Path, monkeypatch
) -> None:
    """A name's committed metrics lead to MLflow's run of their key, and a newer current one is said to be another.

    And results of other weights with this key, as of a machine with another arithmetic, are not the run's.
    """
    record = trained["first"]
    (project / "metrics").mkdir()
    metrics = project / "metrics" / "modern-1.json"
    shutil.copy(project / "first" / "modern-1.json", metrics)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/none.db")
    assert tracking.lookup("modern-1", params).id is None
    shutil.copytree(project / "first" / "modern-1", project / "runs" / "modern-1")
    try:
        alone = tracking.lookup("modern-1", params)
        content = json.loads(metrics.read_text())
        write_json(metrics, content | {"run": content["run"] | {"weights.sha256": 64 * "0"}})
        mixed = tracking.lookup("modern-1", params)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
        both = tracking.lookup("modern-1", params)
        tracking.mark_current(frozenset({("modern-1", trained["faster"].key)}))
        newer = tracking.lookup("modern-1", params)
    finally:
        tracking.mark_current(frozenset())
        shutil.rmtree(project / "metrics")
        shutil.rmtree(project / "runs")
    assert (both.id, both.key) == (tracking.find(client, record).info.run_id, record.key)
    assert alone.key == record.key
    assert alone.parameters == both.parameters
    assert alone.history == both.history
    assert alone.metrics.items() <= both.metrics.items()
    assert alone.metrics["test/misses"] > 0
    assert alone.tags["git.dirty"] == "false"  # the training's journal has its surroundings and its sources
    assert alone.read("source/source.zip") == both.read("source/source.zip") is not None
    assert mixed.tags["weights.sha256"] == record.weights
    assert "test/misses" not in mixed.metrics
    assert "other weights" in mixed.notes[0]
    assert not (project / "none.db").exists()
    assert newer.key == trained["faster"].key
    assert f"({record.key[:12]}…)" in newer.notes[0]


def test_a_killed_run_says_so_and_keeps_the_epochs_it_had(client, params: Params) -> None:
    made = create(client, "0123456789" * 6)
    for epoch, value in ((1, 0.5), (2, 0.25)):
        client.log_metric(made.info.run_id, "train/loss", value, step=epoch)
    client.set_terminated(made.info.run_id, "KILLED")
    found = tracking.lookup("01234567", params)
    assert found.history == [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25}]
    assert found.notes == ("MLflow has it as KILLED",)
    assert found.read("predictions.csv") is None


def test_surroundings_of_a_rebuilt_record_are_not_taken_for_the_training_s(client, params: Params) -> None:
    tags = {"threads": "1", "source.sha256": "s", "environment.sha256": "e", "conformance": "right", "processor": "x"}
    create(client, "ab" * 32, **tags, rebuilt="true", signature="g")
    found = tracking.lookup("abababab", params)
    assert "rebuilt" in found.notes[-1]
    assert set(found.tags) == {"kind", "variant", "seed", "run.key", "rebuilt", "signature", "mlflow.runName"}


# a fresh clone


def test_a_fresh_clone_compares_the_published_runs(clone: Path, params: Params) -> None:
    found = compared(params, "modern-1", "original-tanh-2")
    assert found["parameters"].rows["network.activation"] == ["relu", "scaled-tanh"]
    published = json.loads(MODERN.read_text())
    other = json.loads((ROOT / "metrics" / "original-tanh-2.json").read_text())
    assert found["identity"].rows == {
        "run.key": [one["run"]["key"][:12] for one in (published, other)],
        "signature": [one["run"]["signature"][:12] for one in (published, other)],
        "weights.sha256": [one["run"]["weights.sha256"][:12] for one in (published, other)],
    }
    around = ["git.commit", "git.dirty", "environment.sha256", "processor", "conformance", "threads"]
    unknown = [name for name in around if name not in published["run"]]
    assert found["identity"].notes == [f"unknown of all: {', '.join(unknown)}"]
    assert found["metrics"].rows["test/misses"][0] == str(published["test"]["misses"])
    for title, note in (
        ("code", "no source snapshot with modern-1"),
        ("environment", "no list of packages with modern-1"),
        ("answers", "no answers to test digits with modern-1"),
    ):
        assert note in found[title].notes
        assert not found[title].compared
    run_ = tracking.lookup(published["run"]["key"][:8], params)
    assert run_.name == "modern-1"
    assert run_.notes == ()
    edited = params.model_copy(
        update={"variants": params.variants | {"modern": params.variants["modern"].model_copy(update={"epochs": 99})}}
    )
    other = tracking.lookup("modern-1", edited)  # whose block params.yaml no longer has
    assert other.parameters == {}
    assert "its parameters are not known" in other.notes[0]


def test_a_run_from_before_signatures_is_found_and_never_the_same_as_one_of_now(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"weights.sha256": "a" * 64, "data.sha256": "d" * 64}
    before = {"key": "b" * 64, **weights, "source.sha256": "c" * 64, "threads": "1", "canary": "381da773b390aa3e"}
    block = params.variants["modern"].model_dump(mode="json")
    run_json = {"variant": "modern", "seed": 1, "run": before, "parameters": block}
    now = {"key": "e" * 64, **weights, "signature": "f" * 64}
    for path, content in (
        ("experiments/ladder/metrics/modern-1.json", {"run": before, "test": {"misses": 88}}),
        ("experiments/ladder/runs/modern-1/run.json", run_json),
        ("metrics/modern-2.json", {"run": now, "test": {"misses": 88}}),
    ):
        write_json(tmp_path / path, content)
    older = tracking.lookup("bbbbbbbb", params)
    assert older.name == "modern-1"
    assert older.tags == {"variant": "modern", "seed": "1", "run.key": "b" * 64} | {
        name: value for name, value in before.items() if name != "key"
    }
    assert older.parameters["optimizer.lr"] == str(params.variants["modern"].optimizer.lr)
    rows = compared(params, "modern-1", "modern-2")["identity"].rows
    assert rows == {
        "run.key": ["b" * 12, "e" * 12],
        "signature": ["unknown", "f" * 12],
        "threads": ["1", "unknown"],
    }


def test_the_command_prints_all_sections_and_neither_makes_a_store_nor_loads_mlflow(clone: Path) -> None:
    code = (
        "import sys; from lenet.cli import cli; cli(['diff', 'modern-1', 'modern-2'], standalone_mode=False)\n"
        "assert 'mlflow' not in sys.modules"
    )
    done = run("env", "PYTHONPATH=src", "python", "-c", code, cwd=clone, PYTHONDONTWRITEBYTECODE="1")
    shown = done.stdout.splitlines()
    for line in ("parameters", "identity", "code: unknown", "environment: unknown", "metrics", "answers: unknown"):
        assert line in shown
    assert done.stderr == ""


# sections, by hand


def test_a_run_equals_itself_in_all_sections() -> None:
    """Results in its lock, which are of the moment, are no code."""
    files = {"source__environment_txt": b"torch==2.13.0\n", "predictions_csv": predictions(0, 1)}
    twins = [
        tracked(name, {"objective.loss": "mse"}, {"test/misses": 0.0}, **files, source__source_zip=archive(sources))
        for name in ("v-1", "v-2")
        for sources in [{"src/a.py": "1\n", "dvc.lock": name, "experiments/ladder/dvc.lock": name}]
    ]
    runs = {run_.name: run_ for run_ in (twins[0], Tracked(**vars(twins[1]) | {"tags": twins[0].tags}))}
    assert all(not section.rows and section.compared for section in diff.sections(runs))
    console = Screen(width=100, file=io.StringIO())
    diff.show(runs, True, console)
    printed = [line for line in console.file.getvalue().splitlines() if line and not line.startswith(" ")]  # type: ignore[attr-defined]
    assert printed[2:] == [
        f"{title}: same" for title in ("parameters", "identity", "code", "environment", "metrics", "answers")
    ]


def test_answers_are_counted_and_judged() -> None:
    """Of eight digits the first run misses 7 alone, the other 1 to 5 alone, both differently 6, and 0 neither."""
    first, other = predictions(0, 1, 2, 3, 4, 5, 0, 0), predictions(0, 0, 0, 0, 0, 0, 1, 7)
    section = of("answers", tracked("v-1", predictions_csv=first), tracked("v-2", predictions_csv=other))
    assert [cells[0] for cells in section.rows.values()] == ["7", "5", "1", "0.219", "1, 2, 3, 4, 5, 6, 7"]


def test_mcnemar_s_p_is_the_sign_test_s() -> None:
    """Of six digits one or none on one side: 2 · (1 + 6) / 2⁶."""
    assert diff.mcnemar(1, 5) == diff.mcnemar(5, 1) == pytest.approx(14 / 64)
    assert diff.mcnemar(0, 6) == pytest.approx(2 / 64)
    assert diff.mcnemar(3, 3) == diff.mcnemar(0, 0) == 1


def test_answers_to_other_digits_are_not_compared() -> None:
    other = predictions(0, 1).replace(b"1,1,1", b"1,9,1")
    section = of("answers", tracked("v-1", predictions_csv=predictions(0, 1)), tracked("v-2", predictions_csv=other))
    assert section.notes == ["v-2 was tested on other digits than v-1"]
    assert not section.compared


def test_the_unified_diff_is_printed_when_asked_for() -> None:
    runs = {
        "v-1": tracked("v-1", source__source_zip=archive({"src/a.py": "x\ny\n", "src/gone.py": "z\n"})),
        "[/x]": tracked("v-2", source__source_zip=archive({"src/a.py": "x\n[b]Y\n"})),
    }
    console = Screen(width=40, file=io.StringIO())
    diff.show(runs, True, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "--- v-1/src/a.py\n+++ [/x]/src/a.py\n@@ -1,2 +1,2 @@\n x\n-y\n+[b]Y\n" in text
    assert "--- v-1/src/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-z\n" in text
    console = Screen(file=io.StringIO())
    diff.show(runs, False, console)
    assert "@@" not in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("other", ["# a\u2028b()\n", "# a\rb()\n", "# a\nb()", "# a\n\x1b[1Kb()\n", "# a\nb\u202e()\n"])
def test_no_character_hides_what_a_source_does(other: str) -> None:
    runs = {
        f"v-{i}": tracked(f"v-{i}", source__source_zip=archive({"src/a.py": source}))
        for i, source in enumerate(("# a\nb()\n", other), 1)
    }
    console = Screen(file=io.StringIO())
    diff.show(runs, True, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\n--- v-1/src/a.py\n+++ v-2/src/a.py\n" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "\\" in shown


def test_losses_of_other_targets_are_other_quantities() -> None:
    """Squared errors to targets ±1 and to 0 and 1 are no more comparable than to a cross-entropy."""
    runs = [
        tracked(f"v-{off}", {"objective.loss": "mse", "objective.off": off}, {"train/loss": loss, "train/error": loss})
        for off, loss in (("0.0", 0.5), ("-1.0", 0.75))
    ]
    rows = {"train/error": ["0.5", "0.75 (+0.25)"], "train/loss": ["0.5", "0.75"]}
    assert of("metrics", *runs).rows == rows
    unknown = [Tracked(**vars(one) | {"parameters": {}}) for one in runs]
    assert of("metrics", *unknown).rows == rows


def test_equal_digests_of_an_environment_stand_in_for_a_missing_list() -> None:
    runs = [
        Tracked(f"v-{i}", None, {}, {"run.key": "k", "environment.sha256": "e"}, {}, [], (), lambda _: None)
        for i in (1, 2)
    ]
    assert of("environment", *runs).compared
    assert not of("environment", tracked("v-1"), tracked("v-2")).compared


def test_histories_of_equal_parameters_tell_where_they_part() -> None:
    rows = [{"epoch": epoch, "train/loss": 1 / epoch} for epoch in (1, 2, 3)]
    runs = [
        Tracked(f"v-{i}", None, {"a": "1"}, {"run.key": "k"}, {"train/loss": 0.0}, history, (), lambda _: None)
        for i, history in enumerate((rows, [rows[0], {"epoch": 2, "train/loss": 0.6}], rows, rows[:2]))
    ]
    runs.append(Tracked(**vars(runs[1]) | {"name": "v-4", "parameters": {"a": "2"}}))
    notes = of("metrics", *runs).notes
    assert [note for note in notes if "history from" in note] == [
        "v-1, of the same parameters as the first run, has another history from epoch 2 on",
        "v-3, of the same parameters as the first run, has another history from epoch 3 on",
    ]


# bad input


def test_fewer_than_two_runs_and_one_named_twice_are_refused(clone: Path, params: Params) -> None:
    key = json.loads(MODERN.read_text())["run"]["key"]
    for references, message in ((("modern-1",), "two runs or more, not 1"), (("modern-1", key), "names one twice")):
        with pytest.raises(InputError, match=message):
            diff.look_up(references, params)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("abc", "'abc' names no run; legal: an MLflow run id"),
        ("../modern-1", "names no run"),
        ("' or 1", "names no run"),
        ("future-1", "future-1: no present run of this name.*no runs there yet.*modern-5, original-sigmoid-1"),
        ("modern-99", "modern-99: no present run"),
        ("00000000", "00000000: no run of this project with such an id or run.key"),
        ("0" * 32, "no run of this project with such an id"),
    ],
)
def test_what_is_nowhere_is_one_line(clone: Path, params: Params, reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tracking.lookup(reference, params)
    assert "\n" not in str(caught.value)


def test_a_bad_run_ends_a_command_with_status_2_and_one_line(client, monkeypatch, capsys) -> None:
    for words, said in (
        ("diff modern-1 future-1", "modern-1: no present run of this name"),
        ("rerun modern-7", "modern-7: no present run of this name"),
        ("rerun", "name a RUN"),
        ("rerun modern-1 --all", "name a RUN"),
        ("rerun --all --filter nonsense", "--filter 'nonsense'"),
    ):
        line = refused(words, monkeypatch, capsys)
        assert said in line
        assert line.count("\n") == 1


def test_an_empty_store_has_no_runs(clone: Path, params: Params, monkeypatch, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    (folder / "mlflow.db").touch()
    with pytest.raises(InputError, match="with such an id"):
        tracking.lookup("00000000", params)
    assert (folder / "mlflow.db").stat().st_size == 0
    (folder / "mlflow.db").unlink()
    tracking.open_store()
    for reference in ("00000000", "0" * 32, "future-1"):
        with pytest.raises(InputError, match=f"neither in sqlite:///{folder}/mlflow.db nor"):
            tracking.lookup(reference, params)
    assert tracking.lookup("modern-1", params).id is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x", "sqlite:///junk.db"])
def test_a_store_that_does_not_answer_is_one_line(clone: Path, params: Params, monkeypatch, uri: str, tmp_path_factory):
    if uri.startswith("sqlite"):
        path = tmp_path_factory.mktemp("junk") / "junk.db"
        path.write_text("no database" * 100)
        uri = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"^{uri}: the store cannot be read") as caught:
        tracking.lookup("modern-1", params)
    assert "\n" not in str(caught.value)


def test_a_beginning_that_fits_two_runs_is_refused_with_both(client, params: Params) -> None:
    for key in ("feedfeed1", "feedfeed2"):
        create(client, key)
    with pytest.raises(InputError, match="feedfeed fits several runs: v-1 feedfeed1…, v-1 feedfeed2…"):
        tracking.lookup("feedfeed", params)
    assert tracking.lookup("feedfeed2", params).key == "feedfeed2"


def test_a_run_that_is_no_training_of_ours_is_refused(client, params: Params) -> None:
    elsewhere = client.create_experiment("another-project")
    foreign = client.create_run(elsewhere, run_name="theirs").info.run_id
    comparison = client.create_run("1", tags={"kind": "comparison", "run.key": "beefbeef"}).info.run_id
    with pytest.raises(InputError, match="no run of this project"):
        tracking.lookup(foreign, params)
    with pytest.raises(InputError, match=r"no training \(comparison"):
        tracking.lookup(comparison, params)
    with pytest.raises(InputError, match="no run of this project"):
        tracking.lookup("beefbeef", params)


def test_a_run_s_name_is_that_of_its_tags_and_none_of_the_shell_s(client, params: Params) -> None:
    for variant, seed in (("x; touch y", "1"), ("[/x]", "7"), ("v", "one"), ("v", "")):
        create(client, "c0ffee03", variant=variant, seed=seed)
        with pytest.raises(InputError, match="has no name of a training") as caught:
            tracking.lookup("c0ffee03", params)
        assert f"the run '{variant}-{seed}'" in str(caught.value)
        client.delete_run(client.search_runs(["1"], "tags.`run.key` = 'c0ffee03'")[0].info.run_id)
    create(client, "c0ffee04", seed="7", current="true", **{"mlflow.runName": "[/x]"})
    for reference in ("c0ffee04", "v-7"):
        assert tracking.lookup(reference, params).name == "v-7"


def test_two_current_runs_of_one_name_need_a_key(client, params: Params) -> None:
    for key in ("c0ffee01", "c0ffee02"):
        create(client, key, current="true")
    with pytest.raises(InputError, match="v-1 fits several runs"):
        tracking.lookup("v-1", params)


def test_faulty_files_are_named(client, trained, params: Params, project: Path, tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"v-1: predictions\.csv is faulty"):
        of("answers", tracked("v-1", predictions_csv=b"index,label\n1,2\n"), tracked("v-2"))
    with pytest.raises(InputError, match=r"v-1: source/source\.zip is faulty"):
        of("code", tracked("v-1", source__source_zip=b"no archive"), tracked("v-2"))
    with pytest.raises(InputError, match=r"v-1: source/environment\.txt is faulty"):
        of("environment", tracked("v-1", source__environment_txt=b"torch\n"), tracked("v-2"))
    found = tracking.lookup(trained["first"].key, params)
    (kept,) = [path for path in (project / "mlartifacts").rglob("predictions.csv") if found.id in str(path)]
    kept.rename(tmp_path / "away")
    try:
        gone = tracking.lookup(trained["first"].key, params)
        assert gone.read("predictions.csv") is None
    finally:
        (tmp_path / "away").rename(kept)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "modern-1.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics/modern-1\.json: not whole"):
        tracking.lookup("modern-1", params)
