"""`make reruns`: what it keeps, what it reruns, and the table of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import ROOT
from lenet import cards
from lenet.cards import Published
from lenet.params.schema import Params
from tools import reruns
from tools.reruns import Kept

MACHINE = "a processor, AVX512"


@pytest.fixture
def modern(params: Params) -> Published:
    return cards.published(params, ROOT)["modern"]


def said(found: Published, seed: int, grade: str | None) -> dict[str, Any]:
    """What `lenet rerun --json` prints of one run, as far as it is read."""
    run = {"name": f"{found.name}-{seed}", "id": None, "key": found.runs[seed]["run"]["key"]}
    return {"run": run, "verdict": grade and {"grade": grade}}


def of_many(*reports: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [{"name": "", "status": 0, "report": report, "fault": ""} for report in reports]


def test_verdicts_on_published_runs_are_kept(modern: Published) -> None:
    other = said(modern, 4, "bitwise")
    other["run"] |= {"key": "0" * 64}
    told = of_many(said(modern, 1, "bitwise"), said(modern, 2, "different"), said(modern, 3, None), other, None)
    kept = reruns.merge({}, told, [modern], "2026-12-01", MACHINE)
    assert {name: entry["grade"] for name, entry in kept.items()} == {"modern-1": "bitwise", "modern-2": "different"}
    digests = {name: modern.runs[1]["run"][name] for name in ("key", "weights.sha256")}
    assert kept["modern-1"] == digests | {"grade": "bitwise", "date": "2026-12-01", "machine": MACHINE}
    assert reruns.missing(kept, [modern]) == {"modern": ["modern-2", "modern-3", "modern-4", "modern-5"]}

    told = of_many(said(modern, 1, "different"), said(modern, 2, "bitwise"))
    again = reruns.merge(kept, told, [modern], "2026-12-02", "another")
    assert again["modern-1"] == kept["modern-1"]
    assert (again["modern-2"]["grade"], again["modern-2"]["date"]) == ("bitwise", "2026-12-02")
    one_more = reruns.merge(again, said(modern, 3, "bitwise"), [modern], "2026-12-02", MACHINE)
    assert one_more.keys() - again.keys() == {"modern-3"}


def test_a_run_that_is_published_anew_is_not_proved(modern: Published) -> None:
    kept = reruns.merge({}, of_many(said(modern, 1, "bitwise")), [modern], "2026-12-01", MACHINE)
    for name in ("key", "weights.sha256"):
        run = modern.runs[1]
        anew = run | {"run": run["run"] | {name: "f" * 64}}
        published = Published(modern.name, modern.block, modern.home, modern.runs | {1: anew})
        assert "modern-1" in reruns.missing(kept, [published])["modern"]
        assert len([*reruns.table(kept, [published])]) == 4
        assert not reruns.merge(kept, [], [published], "2026-12-02", MACHINE)


def test_the_table_has_a_row_for_the_seeds_that_have_the_same_to_tell(modern: Published) -> None:
    told = of_many(said(modern, 1, "bitwise"), said(modern, 2, "different"), said(modern, 4, "bitwise"))
    kept = reruns.merge({}, told, [modern], "2026-12-01", MACHINE)
    count, _, _, *rows = reruns.table(kept, [modern])
    assert count == "Of 5 published runs, 3 have been rerun since they were published: 2 bitwise.\n"
    first, _, third, _, _ = (run["run"]["weights.sha256"][:8] for run in modern.runs.values())
    fourth = modern.runs[4]["run"]["weights.sha256"][:8]
    assert rows[0] == f"| `modern` | 1, 4 | {first} · {fourth} | 5,000 | bitwise | 2026-12-01 | {MACHINE} |"
    assert rows[1].endswith(f" | different | 2026-12-01 | {MACHINE} |")
    assert rows[2].startswith(f"| `modern` | 3, 5 | {third} · ")
    assert rows[2].endswith(" | – | – | – |")


def test_the_command_reruns_what_is_missing_and_goes_on_after_an_interrupt(
    params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "reruns.json"
    file.write_text("{}")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(reruns, "KEPT", file)
    monkeypatch.setattr(reruns, "here", lambda: MACHINE)
    found = cards.published(params, ROOT)
    asked: list[list[str]] = []

    def rerun(names: list[str]) -> list[dict[str, Any]]:
        asked.append(names)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return of_many(*(said(found[name.rpartition("-")[0]], int(name[-1]), "bitwise") for name in names))

    monkeypatch.setattr(reruns, "rerun", rerun)
    words = ["original-sigmoid", "original-tanh", "tutorial"]
    assert CliRunner().invoke(reruns.main, words).exit_code == 1
    assert {name[:-2] for name in json.loads(file.read_text())} == {*words[:2]}
    assert CliRunner().invoke(reruns.main, words).exit_code == 0
    assert [names[0][:-2] for names in asked] == [*words, "tutorial"]
    kept: Kept = json.loads(file.read_text())
    assert sorted(kept) == [f"{variant}-{seed}" for variant in words for seed in params.seeds]

    given = tmp_path / "given.json"
    given.write_text(json.dumps(of_many(said(found["modern"], 1, "bitwise"))))
    assert CliRunner().invoke(reruns.main, ["--read", str(given)]).exit_code == 0
    assert json.loads(file.read_text()).keys() - kept.keys() == {"modern-1"}
    assert CliRunner().invoke(reruns.main, ["tomorrow"]).exit_code == 2
