"""What a rerun is said to find, before it runs: of runs with a signature, and of those from before there were any."""

import io
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from lenet.arithmetic import conformance
from lenet.evaluation.judge import Part
from lenet.params.schema import Params
from lenet.reproduce import evidence, many, preflight, probe, rerun, view, workplace
from lenet.reproduce.preflight import Preflight
from lenet.reproduce.sources import Commit, Snapshot
from lenet.reproduce.workplace import Workplace
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_json
from lenet.runtime.screen import Screen
from lenet.tracking import Tracked
from lenet.tracking.mirror import expected_params
from lenet.training import fingerprint

SIGNED = {"block": "b", "data": "d", "digests": {}}
SOURCES = Commit("c" * 40)
FOUND: dict[str, Any] = {
    "conformance": "right", "code": "s" * 64, "packages": {"numpy": "2.3.0", "torch": "2.13.0+cpu"}, "threads": "1",
    "processor": "AVX512",
}  # fmt: skip
PINS = b"numpy==2.3.0\ntorch==2.13.0+cpu\n"


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """This project's params.yaml, and a signature."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_json(tmp_path / "signatures" / "modern.json", SIGNED)
    return Workplace(tmp_path, Path(sys.executable))


@pytest.fixture
def run(params: Params) -> Tracked:
    """As a training with a signature is recorded."""
    tags = {
        "variant": "modern", "seed": "1", "run.key": "k" * 64, "data.sha256": "d" * 64, "source.sha256": "s" * 64,
        "signature": fingerprint.json_sha256(SIGNED), "conformance": "right", "threads": "1", "processor": "AVX512",
    }  # fmt: skip
    parameters = expected_params("modern", 1, params.variants["modern"])
    return Tracked("modern-1", "id", parameters, tags, {}, [], (), {"source/environment.txt": PINS}.get)


def examined(run: Tracked, place: Workplace, **found: Any) -> tuple[Preflight, dict[str, Part]]:
    flight, _ = preflight.examine(run, SOURCES, place, FOUND | found, False)
    return flight, {part.what: part for part in flight.parts}


def test_a_signed_run_is_bitwise_in_reach_and_anything_else_is_said_to_be_broken(
    run: Tracked, place: Workplace
) -> None:
    flight, lines = examined(run, place)
    assert [name for name, line in lines.items() if line.decides] == [
        "code", "data", "parameters", "signature", "conformance",
    ]  # fmt: skip
    assert {name for name, line in lines.items() if line.same} == {*lines} - {"data"}
    assert (lines["conformance"].then, lines["conformance"].here) == ("right", "right")
    assert (flight.best, flight.condition) == ("bitwise", ", if its data come out the same")
    assert "same on every machine: if the rerun is not bitwise, something is broken" in flight.note
    assert flight.to_json()["note"] == flight.note


def test_machine_and_versions_are_shown_and_keep_nothing_out_of_reach(run: Tracked, place: Workplace) -> None:
    other = {"packages": {"numpy": "1.26.0"}, "threads": "2", "processor": "DEFAULT"}
    flight, lines = examined(run, place, **other)
    assert flight.best == "bitwise"
    assert {name for name, line in lines.items() if line.same is False} == {"packages", "threads", "processor"}
    assert lines["packages"].then == "numpy 2.3.0, torch 2.13.0+cpu"
    assert lines["packages"].here == "numpy 1.26.0, torch absent"
    assert (lines["threads"].then, lines["threads"].here) == ("1", "2")


def test_what_a_store_says_is_shown_as_it_stands(run: Tracked, place: Workplace) -> None:
    flight, _ = examined(replace(run, tags=run.tags | {"processor": "[/x]\x1b[2J", "threads": "[red]1"}), place)
    console = Screen(width=140, file=io.StringIO())
    console.print(view.table(flight.parts))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[/x]" in shown
    assert "[red]1" in shown
    assert "\x1b" not in shown
    makers = {path.name for path in (ROOT / "src").rglob("*.py") if "Console(" in path.read_text()}
    assert makers == {"progress.py", "fetch.py"}  # they show names of ours alone; all others make a Screen


def test_other_code_or_parameters_are_reasons(run: Tracked, place: Workplace) -> None:
    for flight, lines, name in (
        (*examined(run, place, code="x" * 64), "code"),
        (*examined(replace(run, parameters=run.parameters | {"epochs": "99"}), place), "parameters"),
    ):
        assert [what for what, line in lines.items() if line.same is False] == [name]
        assert (flight.best, flight.condition, flight.note) == ("predictions", "", "")


def test_what_is_not_known_is_no_reason(run: Tracked, place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "raw_is_whole", lambda: False)
    only = {name: run.tags[name] for name in ("variant", "seed", "run.key", "signature")}
    flight, lines = examined(replace(run, tags=only, parameters={}, read=lambda _: None), place)
    assert [name for name, line in lines.items() if line.same is not None] == ["signature"]
    assert {line.then for name, line in lines.items() if name != "signature"} == {"unknown"}
    assert lines["data"].here == "not in data/raw: to be fetched"
    assert flight.best == "bitwise"


def test_of_sources_that_are_not_executed_the_machine_is_known_and_the_code_is_not(
    run: Tracked, place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "faults", lambda: ["sqrt"])
    flight, lines = examined(run, place, **probe.found() | {"code": None})
    assert (lines["code"].same, lines["processor"].here, flight.off) == (None, fingerprint.processor(), "sqrt")


def test_sources_that_a_rerun_does_not_execute_unasked_are_not_in_reach_and_it_is_said_why(
    run: Tracked, place: Workplace
) -> None:
    for trust in (False, True):
        flight, _ = preflight.examine(run, Snapshot({}, "2 files"), place, FOUND | {"code": None}, trust)
        assert (flight.best, flight.to_json()["untrusted"]) == ("bitwise", not trust)
        assert ("executes them only with --trust-sources" in flight.note) == (not trust)
        assert rerun.Rerun(run, "", flight, None, 0.0, None).exit_status("bitwise") == (0 if trust else 3)


def test_of_much_that_differs_the_first_is_shown(run: Tracked, place: Workplace) -> None:
    names = sorted(name for name in run.parameters if name not in ("variant", "seed"))[:8]
    _, lines = examined(replace(run, parameters=run.parameters | dict.fromkeys(names, "x")), place)
    assert lines["parameters"].then == ", ".join(f"{name} x" for name in names[:6]) + " and 2 more"


def test_a_signature_that_its_stage_has_to_make_is_not_known_beforehand(run: Tracked, place: Workplace) -> None:
    write_json(place.project / "signatures" / "modern.json", SIGNED | {"block": "other"})
    assert examined(run, place)[1]["signature"].same is None
    (place.project / "signatures" / "modern.json").unlink()
    flight, lines = examined(run, place)
    assert (lines["signature"].here, lines["signature"].same) == ("to be computed", None)
    assert flight.best == "bitwise"


def test_operations_that_are_off_are_named(run: Tracked, place: Workplace) -> None:
    flight, lines = examined(run, place, conformance="sqrt, product")
    assert (lines["conformance"].here, lines["conformance"].same) == ("sqrt, product", False)
    assert flight.off == "sqrt, product"
    assert flight.best == "predictions"
    unknown, lines = examined(run, place, conformance=None)
    assert (lines["conformance"].same, unknown.off) == (None, "")


def test_of_a_run_from_before_signatures_everything_counts_and_no_operation_of_today_s(
    run: Tracked, place: Workplace
) -> None:
    former = replace(run, tags={name: run.tags[name] for name in run.tags if name not in ("signature", "conformance")})
    flight, lines = examined(former, place, conformance="sqrt")
    assert (flight.best, flight.note, flight.off) == ("bitwise", evidence.FORMER, "")
    assert {*lines} == {"code", "data", "parameters", "packages", "threads", "processor"}
    for change in ({"processor": "AVX2"}, {"threads": "2"}, {"packages": {"numpy": "1.26.0"}}):
        flight, lines = examined(former, place, **change)
        assert [what for what, line in lines.items() if line.same is False] == [*change]
        assert flight.best == "predictions"


@pytest.fixture
def known(run: Tracked, place: Workplace, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tracked]:
    """Runs that are found by reference, each to be rerun in the same place by the same sources."""
    tags = run.tags | {"weights.sha256": "w"}
    runs = {f"modern-{seed}": replace(run, name=f"modern-{seed}", tags=tags | {"seed": f"{seed}"}) for seed in range(4)}
    runs["modern-0"] = replace(runs["modern-0"], tags=run.tags)  # without weights
    monkeypatch.setattr(rerun.tracking, "lookup", lambda reference, _: runs[reference])
    monkeypatch.setattr(rerun.sources, "of", lambda _: SOURCES)
    monkeypatch.setattr(workplace, "of", lambda *_: nullcontext(place))
    monkeypatch.setattr(workplace, "probe", lambda _: FOUND)
    return runs


@pytest.mark.parametrize("whole", [True, False])
def test_of_runs_that_are_rerun_together_each_has_what_it_comes_to(
    known: dict[str, Tracked], place: Workplace, params: Params, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """One without weights, one whose stages fail, one that contradicts itself; and what they share, once."""
    asked: list[tuple[str, ...]] = []

    def execute(place: Workplace, *words: str, **_: object) -> str:
        asked.append(words)
        if "repro" in words and not (whole and "lenet" in words) and "evaluate@modern-1" not in words[-1:]:
            raise InputError(f"{words[-1]} failed")
        return ""

    def judged(place: Workplace, one: Any, *_: object) -> str:
        if one.run.name == "modern-3":
            raise InputError("modern-3: contradicts itself")
        return str(one.run.name)

    monkeypatch.setattr(Workplace, "run", execute)
    monkeypatch.setattr(Workplace, "digits", lambda _: ROOT)
    monkeypatch.setattr(rerun, "_judged", judged)
    found = [str(one) for one in rerun.together([*known], params, lambda _: None, 2)]
    assert found == [
        "modern-0: it has no weights.sha256, so there is nothing to compare a rerun with",
        "modern-1",
        *(["modern-2", "modern-3: contradicts itself"] if whole else [f"evaluate@modern-{n} failed" for n in (2, 3)]),
    ]
    names = ("modern-1", "modern-2", "modern-3")
    assert asked[0] == ("-m", "lenet", "repro", "--jobs", "2", "--no-track", *names)
    assert asked[1:] == [] if whole else [("-m", "dvc", "repro", f"evaluate@{name}") for name in names]
    assert workplace.loading.read(place.project / "params.yaml", workplace.YAML().load)["seeds"] == [1, 2, 3]


def test_runs_of_one_block_by_the_same_sources_are_rerun_together(
    known: dict[str, Tracked], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the sources know how; a run of another block, or by others, is rerun in a process of its own."""
    how, runs = many.How("bitwise", False, False, False, False), [(name, name) for name in known]
    groups: list[tuple[list[str], int]] = []

    def process(group: Any, how: many.How, jobs: int, _: object) -> list[many.OneOfMany]:
        groups.append(([name for name, _ in group], jobs))
        return [many.OneOfMany(name, name, 4 if name == "modern-2" else 0, None, "") for name, _ in group]

    def regrouped() -> list[tuple[list[str], int]]:
        groups.clear()
        results = many.rerun_all(params, runs, how, 3, lambda _: None)
        assert [result.name for result in results] == sorted(known)
        assert many.worst(results) == 4
        return sorted(groups)

    monkeypatch.setattr(many, "_process", process)
    monkeypatch.setattr(many, "_together", lambda params, group, how, jobs: process(group, how, jobs, None))
    assert regrouped() == [([name], 1) for name in known]  # commit cccc… is not here
    monkeypatch.setattr(Commit, "has", lambda self, name: name == "src/lenet/pipeline/ahead.py")
    assert regrouped() == [([*known], 3)]
    known["modern-0"] = replace(known["modern-0"], tags=known["modern-0"].tags | {"variant": "other"})
    assert regrouped() == [(["modern-0"], 1), (["modern-1", "modern-2", "modern-3"], 3)]
    commits = iter([*"aabb"])
    monkeypatch.setattr(rerun.sources, "of", lambda _: Commit(40 * next(commits)))
    assert regrouped() == [(["modern-0"], 1), (["modern-1"], 1), (["modern-2", "modern-3"], 3)]


def test_nothing_is_computed_where_an_operation_is_off(
    known: dict[str, Tracked], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(workplace, "probe", lambda _: FOUND | {"conformance": "sqrt"})
    monkeypatch.setattr(rerun, "_execute", lambda *_: pytest.fail("it has been executed"))
    for only in (True, False):
        with pytest.raises(InputError, match=r"modern-1: .*off on this machine .*: sqrt; .* nothing is trained"):
            rerun.rerun("modern-1", params, told.append, only_preflight=only)
    assert [type(what) for what in told] == [Preflight, Preflight]
    monkeypatch.setattr(workplace, "probe", lambda _: FOUND)
    assert rerun.rerun("modern-1", params, told.append, only_preflight=True).exit_status("bitwise") == 0


def test_dask_s_certificates_are_for_reruns_on_a_cluster_alone(tmp_path: Path, monkeypatch) -> None:
    place = Workplace(tmp_path / "project", Path(sys.executable))
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY", "key")
    assert not [name for name in place._environment() if name.startswith(("DASK_", "LENET_SCHEDULER"))]
    monkeypatch.setenv("LENET_SCHEDULER", "tls://head:8786")
    assert place._environment()["DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"] == "key"
