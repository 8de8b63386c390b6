"""`lenet repro`: a DVC pipeline with independent stages side by side.

DVC itself decides what is stale and records what was done; here is only the order. It takes its lock around its
bookkeeping alone, so several `dvc repro --single-item STAGE` may run at once in one workspace.

Seeds of one variant train in one process, ahead of their stages, which then take the results (ahead.py). A seed that
has none, for whatever reason, is trained by its stage, as `dvc repro` does it.
"""

import heapq
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from lenet.params import loading
from lenet.params.schema import Params
from lenet.pipeline import ahead
from lenet.report import results_table
from lenet.runs import current
from lenet.runtime import layout, processes, remedies, snapshot
from lenet.runtime.errors import InputError
from lenet.runtime.files import read_json, write_json
from lenet.runtime.screen import Screen

if TYPE_CHECKING:
    import networkx
    from dvc.stage import PipelineStage

HOST_WORK = 16  # an update takes its host as long as the arithmetic of so many digits
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")  # says a DVC that another, maybe dying, one stops
ATTEMPTS = 10
SLACK = 1.1  # groups of trainings may last so much longer than trainings one by one: a group costs less than its sum


class StageFailed(Exception):
    """A stage ended with an error; its log has been shown."""


@dataclass
class Running:
    """A stage under way."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    since: float = field(default_factory=time.monotonic)
    attempt: int = 1

    @property
    def seconds(self) -> str:
        return f"{time.monotonic() - self.since:.0f} s"

    def progress(self) -> str:
        """The latest epoch that the stage has told of, a line for each training."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join({line.partition(":")[0]: line for line in lines if ": epoch " in line}.values())


Ended = list[tuple[str, float, float]]
"""Stages that have ended well: name, start and end by the clock of ``time.monotonic``."""


@dataclass(frozen=True)
class Room:
    """How much may be under way at once.

    Attributes:
        here: stages on this machine.
        elsewhere: trainings on a cluster; 0: they are this machine's.
    """

    here: int
    elsewhere: int = 0

    @property
    def trainings(self) -> int:
        """How many trainings may be under way."""
        return self.elsewhere or self.here


def repro(params: Params, names: Sequence[str], room: Room, track: bool) -> None:
    """Bring a pipeline up to date, or some of its runs, with several stages at once.

    An experiment also needs the root's digits, and to publish the root's runs: these come first.

    Args:
        params: all parameters.
        names: runs, as ``<variant>-<seed>``, and experiments; none for the whole of the root's pipeline. Runs and
            metrics that a pipeline no longer names are removed from it.
        room: how many stages may run side by side.
        track: whether stages record in MLflow.

    Raises:
        InputError: no such run or experiment, another `lenet repro` is under way, or DVC cannot read a pipeline.
        StageFailed: a stage ended with an error; the stages beside it were let finish.
    """
    with processes.sole_pipeline():
        ahead.salvage()
        ended: Ended = []
        for home, its in _by_home(params, names).items():
            _bring(params, home, its, room, ended)
        if not ended:
            print("Everything is up to date.", file=sys.stderr)
        if not results_table.is_drawn(layout.REPORTS):
            from lenet.report import draw

            draw.draw(layout.REPORTS)
        if track:
            _mark_current(params)


def _by_home(params: Params, names: Sequence[str]) -> dict[Path, list[str]]:
    """What is to be brought up to date, by the folder of its pipeline, the root's first; no names: all of it."""
    root, *experiments = layout.homes()
    whole = [home for home in experiments if home.name in names]
    runs: dict[Path, list[str]] = {root: []}
    for name in names:
        if root / layout.EXPERIMENTS / name not in whole:
            runs.setdefault(loading.home_of(name.rpartition("-")[0]).parent, []).append(name)
    if whole:
        runs[root] += [f"{variant}-{seed}" for variant, seed in params.runs()]
    if whole or len(runs) > 1:
        runs[root].append("prepare")
    return runs | {home: [] for home in whole}


def _bring(params: Params, home: Path, names: Sequence[str], room: Room, ended: Ended) -> None:
    """Bring one pipeline up to date, or some of its runs and stages."""
    graph, waiting = _stale(home, names)
    if first := _signatures(graph, waiting):
        _Scheduler(home, graph, first, room, {}, ended).run()
        graph, waiting = _stale(home, names)
    if waiting:
        costs = {name: _cost(params, name) for name in waiting}
        _Scheduler(home, graph, waiting, room, costs, ended, _groups(graph, costs, room.trainings)).run()


def _mark_current(params: Params) -> None:
    """Mark the runs behind the present outputs in MLflow: `dvc checkout` changes outputs without running a stage."""
    found = current.present(params)
    if not current.is_noted(found):
        from lenet import tracking  # takes seconds, and is seldom needed

        tracking.mark_current(found)


def _stale(home: Path, names: Sequence[str]) -> "tuple[networkx.DiGraph, set[str]]":
    """The graph of a pipeline's stages (an edge leads to what a stage needs), and those that may have to run.

    All of them, or what some runs or stages need. Runs that the pipeline no longer names are removed on the way.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    busy = Retrying(
        retry=retry_if_exception_type(LockError), stop=stop_after_attempt(ATTEMPTS), wait=wait_fixed(1), reraise=True
    )
    file = home / "dvc.yaml"
    try:
        with Repo(str(home)) as repo:
            graph = networkx.relabel_nodes(repo.index.graph, {stage: stage.name for stage in repo.index.stages})
            own = {*graph}
            if not own:
                raise InputError(f"{file}: it has no stages; `git checkout HEAD -- {file}` brings them back")
            runs = {item: name for name in own for stage, item in [_parts(name)] if stage == "evaluate"}
            if unknown := [name for name in names if name not in {*runs, *own}]:
                legal = ", ".join([*sorted(runs), *(one.name for one in layout.homes()[1:])])
                raise InputError(f"{', '.join(unknown)}: no such run; legal: {legal}")
            if runs:  # a file that is cut off says nothing of them
                _remove_stale(home, {*runs})
            own = {runs.get(name, name) for name in names} or own
            needed = own.union(*(networkx.descendants(graph, name) for name in own))
            changed = {name.rpartition(":")[2] for name in busy(repo.status)}
            for stage in repo.index.stages:
                if stage.name in changed & needed and _has_to_train(stage):
                    graph.nodes[stage.name].update(command=stage.cmd, folder=stage.wdir)
    except DvcException as error:
        raise InputError("; ".join(filter(None, [remedies.of_dvc(error), snapshot.silence()]))) from None
    needed_by = graph.reverse(copy=False)
    return graph, needed & changed.union(*(networkx.descendants(needed_by, name) for name in changed))


def _has_to_train(stage: "PipelineStage") -> bool:
    """Whether a stage is a training that neither DVC's cache nor a killed `lenet repro` has done already."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import RunCacheNotFoundError

    kind, run = _parts(stage.name)
    if kind != "train" or ahead.waits(run):
        return False
    try:
        stage.save_deps()
        stage.repo.stage_cache.restore(stage, dry=True)
    except RunCacheNotFoundError:
        return True
    except DvcException:  # what it depends on is not there yet
        pass
    return False


def _groups(graph: "networkx.DiGraph", costs: Mapping[str, float], jobs: int) -> list[list[str]]:
    """Trainings in groups of one variant, as large as still keep all cores busy to the end."""
    variants: dict[str, list[str]] = {}
    for name in sorted((name for name in costs if "command" in graph.nodes[name]), key=_by_seed):
        variants.setdefault(name.rpartition("-")[0], []).append(name)

    def of(size: int) -> list[list[str]]:
        found = []
        for names in variants.values():
            count = ceil(len(names) / size)
            found += [names[len(names) * n // count : len(names) * (n + 1) // count] for n in range(count)]
        return found

    def end(groups: list[list[str]]) -> float:
        cores = [0.0] * jobs  # when each is free; the longest go first
        for cost in sorted((sum(costs[name] for name in group) for group in groups), reverse=True):
            heapq.heapreplace(cores, cores[0] + cost)
        return max(cores)

    sizes = range(max(map(len, variants.values()), default=1), 0, -1)
    return next(found for size in sizes if end(found := of(size)) <= SLACK * end(of(1)))


def _by_seed(name: str) -> tuple[str, int]:
    variant, _, seed = name.rpartition("-")
    return variant, int(seed)


def _signatures(graph: "networkx.DiGraph", waiting: set[str]) -> set[str]:
    """The stale signatures, with what they wait for. If they come out as they were, nothing after them is stale."""
    import networkx

    signatures = {name for name in waiting if _parts(name)[0] == "signature"}
    return signatures.union(*(waiting & networkx.descendants(graph, name) for name in signatures))


def _parts(name: str) -> tuple[str, str]:
    """A stage's name without its item, and the item."""
    stage, _, item = name.partition("@")
    return stage, item


def _remove_stale(home: Path, wanted: set[str]) -> None:
    """Remove what a pipeline has of runs that it no longer names: its last stage depends on whole folders."""
    names = {name.rpartition("-")[0] for name in wanted} | {layout.DIGITS.stem}
    runs = [path for path in (home / layout.RUNS).glob("*-*") if (path / "run.json").exists()]
    metrics = [path for path in (home / layout.METRICS).glob("*-*.json") if "run" in read_json(path)]
    stale = [path for path in (*runs, *metrics) if path.name.removesuffix(".json") not in wanted]
    stale += [path for path in (home / layout.SIGNATURES).glob("*.json") if path.stem not in names]
    for path in stale:
        print(f"removing {path}: no stage produces it any more", file=sys.stderr)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cost(params: Params, name: str) -> float:
    """How long a stage takes beside others, in digits: what trainings take counts, the rest is short."""
    stage, run = _parts(name)
    if stage != "train":
        return 0
    variant = params.variants[run.rpartition("-")[0]]
    return variant.epochs * (variant.train_size * (1 + HOST_WORK / variant.batch_size) + variant.validation_size)


class _Scheduler:
    """Runs stages whose needs are met, the longest first, so that all cores are busy to the end.

    Afterwards ``timeline.json`` beside the stages' logs holds each stage's start and end, in seconds from the first.
    """

    def __init__(
        self,
        home: Path,
        graph: "networkx.DiGraph",
        waiting: set[str],
        room: Room,
        costs: dict[str, float],
        ended: Ended,
        groups: Sequence[Sequence[str]] = (),
    ) -> None:
        self.home = home
        self.graph, self.waiting, self.room, self.costs, self.ended = graph, set(waiting), room, costs, ended
        self.running: list[Running] = []
        self.total, self.failed = len(waiting), False
        self.ahead = dict(self._add(group) for group in groups if len(group) > 1)
        self.console = Screen(stderr=True)
        self.logs = processes.locks() / "logs"

    def _add(self, group: Sequence[str]) -> tuple[str, tuple[str, str]]:
        """Put trainings side by side before their stages, which are short then and come first; its name and command."""
        first, *others = group
        seeds = [str(_by_seed(name)[1]) for name in others]
        name = "+".join([first, *seeds])
        for stage in group:
            self.graph.add_edges_from((name, needed) for needed in [*self.graph.successors(stage)])
            self.graph.add_edge(stage, name)
        self.waiting.add(name)
        self.costs |= {name: sum(self.costs[stage] for stage in group)} | dict.fromkeys(group, inf)
        command = f"{self.graph.nodes[first]['command']} {' '.join(seeds)} --ahead"
        return name, (command, self.graph.nodes[first]["folder"])

    def run(self) -> None:
        self.logs.mkdir(exist_ok=True)
        try:
            with Live(console=self.console, get_renderable=self._view, refresh_per_second=4, transient=True):
                while self._start():
                    time.sleep(0.1)
                    self._finish()
        finally:
            self._stop()
        first = min((start for _, start, _ in self.ended), default=0)
        timeline = [
            {"stage": name, "start": round(start - first, 1), "end": round(end - first, 1)}
            for name, start, end in self.ended
        ]
        write_json(self.logs / "timeline.json", timeline)
        if self.failed:
            raise StageFailed

    def _start(self) -> bool:
        """Start what is ready as long as there is room; tell whether anything runs."""
        while name := next((name for name in self._ready() if self._has_room(name)), None):
            self.waiting.remove(name)
            self.running.append(self._launch(name))
        return bool(self.running)

    def _ready(self) -> Iterator[str]:
        """Of those that may start the next first. After a failure only what has been computed is still taken in."""
        busy = self.waiting | {stage.name for stage in self.running}
        for name in sorted(self.waiting, key=self._order):
            stage, run = _parts(name)
            may_start = not self.failed or (stage == "train" and ahead.waits(run))
            if may_start and busy.isdisjoint(self.graph.successors(name)):
                yield name

    def _has_room(self, name: str) -> bool:
        if not self.room.elsewhere:
            return len(self.running) < self.room.here
        trainings = sum(self._trains(stage.name) for stage in self.running)
        if self._trains(name):
            return trainings < self.room.elsewhere
        return len(self.running) - trainings < self.room.here

    def _trains(self, name: str) -> bool:
        """Whether it trains, and does not take what has been trained."""
        stage, run = _parts(name)
        return name in self.ahead or (stage == "train" and not ahead.waits(run))

    def _order(self, name: str) -> tuple[float, list[str]]:
        return -self.costs.get(name, 0), name.split("-")[::-1]

    def _launch(self, name: str, attempt: int = 1) -> Running:
        log = self.logs / "-".join([*self.home.parts[1:], f"{name}.log"])
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages call `python`
        # DVC runs commands by SHELL, and a service's account may have one that runs none
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PATH": programs, "SHELL": "/bin/sh", ahead.AHEAD: "1"}
        command, folder = [sys.executable, "-m", "dvc", "repro", "--single-item", name], str(self.home)
        if name in self.ahead:
            words, folder = self.ahead[name]
            command = ["/bin/sh", "-c", words]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=folder
            )
        return Running(name, process, log, attempt=attempt)

    def _finish(self) -> None:
        for stage in list(self.running):
            status = stage.process.poll()
            if status is None:
                continue
            self.running.remove(stage)
            text = stage.log.read_text(encoding="utf-8", errors="replace")
            if status and any(words in text for words in BUSY) and stage.attempt < ATTEMPTS:
                self.running.append(self._launch(stage.name, stage.attempt + 1))
            elif status and stage.name in self.ahead:  # each seed's own stage does it again, or says what is wrong
                self.console.print(f"{stage.name} did not end well; its log is {stage.log}")
            elif status:
                self.failed = True
                self.console.print(Text.assemble((f"{stage.name} failed", "red"), f"; its log, {stage.log}:"))
                self.console.print(Text(text.strip()))
            else:
                self.ended.append((stage.name, stage.since, time.monotonic()))
                how = "from DVC's cache" if "is cached" in text else f"{stage.seconds}"
                how = "unchanged" if "didn't change" in text else how
                self.console.print(f"{stage.name}: {how}")

    def _stop(self) -> None:
        """End what still runs: each `dvc` is told, and the stage below it follows its end."""
        for stage in self.running:
            stage.process.send_signal(signal.SIGTERM)
        for stage in self.running:
            try:
                stage.process.wait(processes.GRACE)
            except subprocess.TimeoutExpired:
                stage.process.kill()

    def _view(self) -> Table | str:
        if not self.console.is_terminal:
            return ""
        done = self.total - len(({*self.waiting} | {stage.name for stage in self.running}) - {*self.ahead})
        view = Table.grid(padding=(0, 2))
        view.add_row(f"{done} of {self.total} stages", "", "")
        for stage in self.running:
            view.add_row(f"  {stage.name}", stage.seconds, Text(stage.progress(), no_wrap=True, overflow="ellipsis"))
        return view
