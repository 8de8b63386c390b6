"""A run's sources for its rerun: a commit that Git vouches for, or an archive that keeps to the writer's limits."""

import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import commit, run
from lenet.reproduce import sources
from lenet.reproduce.sources import Commit, Snapshot
from lenet.runtime import snapshot
from lenet.runtime.errors import InputError
from lenet.tracking import Tracked

A = "src/lenet/a.py"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository of two commits, and this process there."""
    monkeypatch.chdir(tmp_path)
    run("git", "init", "-q", cwd=tmp_path)
    for text in ("a = 1\n", "a = 2\n"):
        for name, content in ((A, text), ("params.yaml", "seeds: [1]\n"), ("README.md", text)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        commit(tmp_path, text)
    return tmp_path


def hashes() -> list[str]:
    """The commits, the newest first."""
    return run("git", "log", "--format=%H", cwd=Path()).stdout.split()


def tracked(archive: bytes | None, **tags: str) -> Tracked:
    read = {"source/source.zip": archive}.get
    tags = {"run.key": "k", **{name.replace("_", "."): value for name, value in tags.items()}}
    return Tracked("modern-1", "id", {}, tags, {}, [], (), read, "recorded by 'eve'")


def zipped(files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_an_archive_that_a_commit_has_is_that_commit_whatever_the_store_says_of_it(repository: Path) -> None:
    new, old = hashes()
    archive = snapshot.archive()
    assert sources.of(tracked(archive, git_commit=new, git_dirty="true")) == Commit(new)
    assert sources.of(tracked(archive, git_commit=old, git_dirty="true")) == Commit(new)
    assert sources.of(tracked(archive, git_commit="0" * 40, git_dirty="false")) == Commit(new)
    run("git", "checkout", "-q", old, cwd=Path())
    assert sources.of(tracked(archive, git_commit=new, git_dirty="false")) == Commit(new)  # by its branch
    assert sources.of(tracked(snapshot.archive(), git_commit=new, git_dirty="true")) == Commit(old)
    branch = run("git", "for-each-ref", "--format=%(refname)", "refs/heads", cwd=Path()).stdout.strip()
    run("git", "update-ref", "refs/remotes/fork/main", new, cwd=Path())
    run("git", "update-ref", branch, old, cwd=Path())
    assert isinstance(sources.of(tracked(archive, git_commit=new, git_dirty="false")), Snapshot)  # fetched, not chosen


def test_a_revision_names_a_commit_or_is_refused_in_a_line(repository: Path) -> None:
    new, old = hashes()
    run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "tag", "-am", "old", "v1", old, cwd=Path())
    assert (sources.commit("v1"), sources.commit("HEAD")) == (Commit(old), Commit(new))
    for wrong in ("nowhere", "--all", "HEAD:README.md"):
        with pytest.raises(InputError, match=r"^git rev-parse .*: fatal: .*$"):
            sources.commit(wrong)


def test_a_link_that_leads_out_of_a_commit_is_refused_in_a_line(repository: Path, tmp_path: Path) -> None:
    (repository / "data").symlink_to("/elsewhere")
    commit(repository, "link")
    with pytest.raises(InputError, match="'data' is a link to an absolute path"):
        sources.commit("HEAD").unpack(tmp_path / "there")


def test_of_commits_with_the_same_sources_the_run_s_own_is_meant_else_the_newest(repository: Path) -> None:
    (repository / "README.md").write_text("no source\n")
    commit(repository, "the same sources")
    newest, new, _ = hashes()
    for at, meant in ((new, new), (newest, newest), ("0" * 40, newest)):
        assert sources.of(tracked(snapshot.archive(), git_commit=at, git_dirty="true")) == Commit(meant)


def test_of_a_project_within_a_repository_its_part_alone_counts_and_is_unpacked(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {A: "a = 3\n", "params.yaml": "seeds: [2]\n"}
    for name, content in part.items():
        (repository / "part" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "part" / name).write_text(content)
    commit(repository, "a project beside another")
    monkeypatch.chdir(repository / "part")
    found = sources.of(tracked(snapshot.archive(), git_commit="0" * 40, git_dirty="true"))
    assert found == Commit(hashes()[0])
    found.unpack(repository / "there")
    files = [path for path in (repository / "there").rglob("*") if path.is_file()]
    assert {str(path.relative_to(repository / "there")): path.read_text() for path in files} == part


def test_a_run_known_by_its_metrics_alone_is_of_the_last_commit_that_publishes_its_key(repository: Path) -> None:
    for folder, key in (("metrics", "k"), ("metrics", "later"), ("experiments/ladder/metrics", "other")):
        (repository / folder).mkdir(parents=True, exist_ok=True)
        (repository / folder / "modern-1.json").write_text(json.dumps({"run": {"key": key}}))
        commit(repository, key)
    found = [sources.of(tracked(None, run_key=key)) for key in ("other", "later", "k")]
    assert found == [Commit(one) for one in hashes()[:3]]
    with pytest.raises(InputError, match=r"modern-1: no commit here publishes metrics with its run\.key"):
        sources.of(tracked(None, run_key="none"))


def test_a_file_that_no_commit_has_makes_it_a_snapshot_that_is_told_about(repository: Path) -> None:
    new, old = hashes()
    (repository / A).write_text("a = 3\n")
    found = sources.of(tracked(snapshot.archive(), git_commit=new, git_dirty="true"))
    assert isinstance(found, Snapshot)
    assert found.origin == f"2 files, 1 of them not as in commit {new[:12]}: {A}; recorded by 'eve'"
    found.unpack(repository / "there")
    assert (repository / "there" / A).read_text() == "a = 3\n"
    run("git", "checkout", "-q", ".", cwd=Path())
    # files of two commits are the sources of none
    mixed = zipped({A: b"a = 1\n", "params.yaml": b"seeds: [1]\n", "pyproject.toml": b"a = 2\n"})
    assert isinstance(sources.of(tracked(mixed, git_commit=old, git_dirty="true")), Snapshot)


def test_a_commit_that_no_branch_leads_to_vouches_for_nothing(repository: Path) -> None:
    """Git keeps objects that anybody has sent."""
    new, old = hashes()
    archive = snapshot.archive()
    run("git", "reset", "-q", "--hard", old, cwd=Path())
    assert run("git", "cat-file", "-t", new, cwd=Path()).stdout == "commit\n"
    for dirty in ("true", "false"):
        assert isinstance(sources.of(tracked(archive, git_commit=new, git_dirty=dirty)), Snapshot)
    with pytest.raises(InputError, match="there is no snapshot"):
        sources.of(tracked(None, git_commit=new, git_dirty="false"))


def bomb() -> bytes:
    """A member that holds more than it says."""
    size = 100 * snapshot.LIMIT
    content = bytearray(zipped({A: bytes(size)}))
    for at in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        content[at : at + 4] = struct.pack("<I", 10)
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(zipped({A: b"a = 1\n"}))
    for at in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[at] |= 1
    return bytes(content)


def broken() -> bytes:
    content = bytearray(zipped({A: b"a = 1\n" * 100}))
    content[content.find(b"a.py") + 6] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (lambda: b"no archive", "damaged"),
        (lambda: b"", "damaged"),
        (lambda: zipped({A: b"a"})[:-10], "damaged"),
        (broken, "damaged"),
        (bomb, "damaged"),
        (encrypted, "no file that a run keeps"),
        (lambda: zipped({A: b"a"}, zipfile.ZIP_LZMA), "no file that a run keeps"),
        (lambda: zipped({"../a.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"/src/a.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"src/../a.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"src/.hidden/a.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"conftest.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"src/\x1b[2J\n.py": b"a"}), "no file that a run keeps"),
        (lambda: zipped({"src/a.pth": b"a"}), "no file that a run keeps"),
        (lambda: zipped({A: bytes(snapshot.FILE_LIMIT + 1)}), "no file that a run keeps"),
        (lambda: zipped({f"src/{i}.py": bytes(snapshot.FILE_LIMIT) for i in range(5)}), "more than"),
        (lambda: bytes(2 * snapshot.LIMIT + 1), "more than"),
        (lambda: zipped({f"src/{i}.py": b"a" for i in range(snapshot.MOST + 1)}), "more than"),
    ],
)
def test_an_archive_beyond_the_writer_s_limits_is_one_line(archive: Callable[[], bytes], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        sources.of(tracked(archive(), git_commit="none", git_dirty="true"))
    assert str(raised.value).startswith("modern-1: source/source.zip is faulty (")
    assert len(str(raised.value).splitlines()) == 1


def test_git_that_fails_or_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, said in ((os.environ["PATH"], "not a git repository"), ("", "No such file or directory: 'git'")):
        monkeypatch.setenv("PATH", path)
        assert snapshot.git("log", "-1", missing="none") == b"none"
        with pytest.raises(InputError, match=rf"^git log -1: .*{said}.*$"):
            snapshot.git("log", "-1")
        with pytest.raises(InputError, match=r"^git rev-parse .*$"):
            sources.commit("HEAD")


def test_sources_of_before_there_were_packages_are_asked_by_their_own_names(tmp_path: Path) -> None:
    package = tmp_path / "src" / "lenet"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "fingerprint.py").write_text(
        "def source_sha256():\n    return 'then'\ndef environment():\n    return []\n"
    )
    probe = Path(sources.__file__).with_name("probe.py")
    found = json.loads(run(sys.executable, "-P", str(probe), cwd=tmp_path, PYTHONPATH="src").stdout)
    assert (found["code"], found["conformance"], found["packages"]) == ("then", None, {})
