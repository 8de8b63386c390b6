"""The registry of models, and the gate before its alias: who is champion is decided on digits that nobody has seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from conftest import lenet_command, mlflow_server, refused, run
from lenet import tracking
from lenet.digits.data import Digits
from lenet.params.schema import Params, Variant
from lenet.registry import gate
from lenet.registry.gate import Comparison, Loaded
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking import journal, registry
from lenet.tracking.registry import Version
from lenet.training import fingerprint

COUNT = 2000


def loaded(number: int, block: Variant, digits: Digits, misses: slice, parameters: int = 60_000) -> Loaded:
    """A network that misses certain digits of those that it is asked."""
    record = Record("modern", number, block, f"key {number}", fingerprint.data_sha256(*digits.split(block)), "", "w")

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        places = {image.tobytes(): i for i, image in enumerate(digits.images.numpy())}
        asked = np.array([places[image.tobytes()] for image in images])
        right = digits.labels.numpy()[asked].astype(np.int64)
        wrong = np.isin(asked, np.arange(len(digits))[misses])
        return {"digit": np.where(wrong, (right + 1) % 10, right)}

    return Loaded(Version(number, record.name, record.key, "w"), record, predict, parameters)


@pytest.fixture
def few(digits: Digits) -> Digits:
    return digits[:COUNT]


@pytest.fixture
def block(params: Params) -> Variant:
    return params.variants["modern"].model_copy(update={"train_size": 500, "validation_size": 100})


def test_the_interval_is_agresti_and_min_s() -> None:
    a, b = np.zeros((2, 1000), bool)
    a[:30], b[20:32] = True, True  # 20 digits that a alone misses, 2 that b alone misses
    difference, low, high = gate.paired(a, b)
    assert difference == pytest.approx(18 / 1000)
    # (20.5 − 2.5) / 1002 ± 1.959964 · √(23 − 18² / 1002) / 1002
    assert (low, high) == pytest.approx((0.0086495, 0.0272787), abs=1e-6)
    assert gate.paired(b, a)[0] == -difference
    assert gate.paired(a, b, 0.01)[1] < low


def test_only_digits_that_neither_has_learned_from_are_asked(block: Variant, few: Digits) -> None:
    other = block.model_copy(update={"validation_size": 300})  # it learns from 300 to 800, the first from 100 to 600
    first, second = loaded(1, block, few, slice(0)), loaded(2, other, few, slice(0))
    free = gate.unseen([first.record, second.record], few)
    assert not free[100:800].any()
    assert free[:100].all()
    assert free[800:].all()
    # what both miss of what they have learned from is not counted
    found = gate.compare(loaded(1, block, few, slice(100, 800)), loaded(2, other, few, slice(90, 100)), few)
    assert found.digits == COUNT - 700
    assert found.misses == (0, 10)


def test_without_unseen_digits_or_on_other_digits_nothing_is_compared(block: Variant, few: Digits) -> None:
    everything = block.model_copy(update={"train_size": COUNT, "validation_size": 0})
    with pytest.raises(InputError, match=r"only 0 digits are left .* test digits are for evaluation alone.*--force"):
        gate.compare(loaded(1, everything, few, slice(0)), loaded(2, block, few, slice(0)), few)
    one = loaded(1, block, few, slice(0))
    with pytest.raises(InputError, match=r"modern-1: it was trained on other digits"):
        gate.compare(replace(one, record=replace(one.record, data="0" * 64)), one, few)


@pytest.mark.parametrize(
    ("misses", "parameters", "better", "smaller", "words"),
    [
        (slice(1000, 1010), 60_000, True, False, "the first is better"),
        (slice(1000, 1038), 60_000, False, False, "no different beyond chance"),
        (slice(1000, 1080), 60_000, False, False, "the first is worse"),
        (slice(1000, 1040), 50_000, False, True, "no different beyond chance"),  # the same digits, fewer parameters
        (slice(1010, 1060), 50_000, False, False, "no different beyond chance"),  # smaller, but maybe worse
    ],
)
def test_better_is_beyond_chance(
    block: Variant, few: Digits, misses: slice, parameters: int, better: bool, smaller: bool, words: str
) -> None:
    champion = loaded(1, block, few, slice(1000, 1040))
    found = gate.compare(loaded(2, block, few, misses, parameters), champion, few)
    assert (found.better, found.smaller) == (better, smaller)
    assert words in found.verdict
    assert "1,500 digits that neither has seen" in found.verdict


def test_several_challengers_need_more(block: Variant, few: Digits) -> None:
    champion, challenger = loaded(1, block, few, slice(1000, 1020)), loaded(2, block, few, slice(1000, 1014))
    alone = gate.compare(challenger, champion, few)
    assert alone.better
    among = gate.compare(challenger, champion, few, tests=50)
    assert not among.better
    assert "corrected for 50 challengers" in among.verdict


Store = tuple[Path, MlflowClient]


@pytest.fixture
def store(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A checkout with two runs in its store."""
    monkeypatch.chdir(copy)
    return copy, tracking.open_store()


def register(name: str, params: Params) -> Version:
    return tracking.register(tracking.lookup(name, params), f"card of {name}")[0]


def test_a_run_becomes_one_version_with_what_it_is(store: Store, params: Params) -> None:
    _, client = store
    first = register("modern-1", params)
    assert register("modern-1", params) == first
    assert tracking.versions() == ([first], None)
    (made,) = client.search_model_versions("name = 'lenet5'")
    metrics = tracking.lookup("modern-1", params)
    assert made.tags["run.key"] == metrics.key
    assert made.tags["weights.sha256"] == metrics.tags["weights.sha256"]
    assert made.run_id == metrics.id
    assert made.description == "card of modern-1"
    record, answer = tracking.load_model(first.uri, Path.cwd() / "data")
    assert record.name == "modern-1"
    assert set(answer(np.zeros((1, 28, 28), np.uint8))) == {"digit", "scores"}


def test_the_alias_is_earned_and_says_why(
    store: Store, params: Params, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = store
    few = digits[:4000]
    with pytest.raises(InputError, match="`lenet register modern` makes one"):
        gate.judge(few, prefer_small=False)
    register("original-tanh-1", params)
    outcome = gate.judge(few, prefer_small=False)
    outcome.promote()
    assert int(client.get_model_version_by_alias("lenet5", "champion").version) == 1
    second = register("modern-1", params)
    outcome = gate.judge(few, prefer_small=False)
    (compared,) = outcome.comparisons
    assert compared.digits == 2500  # of 4,000, without the 1,500 that both have learned from
    assert (outcome.winner == second) == compared.better

    def decided(better: bool) -> Callable[..., Comparison]:
        return lambda *given: replace(compared, low=-0.02, high=-0.01 if better else 0.01)

    monkeypatch.setattr(gate, "compare", decided(False))
    assert gate.judge(few, prefer_small=False).winner is None
    monkeypatch.setattr(gate, "compare", decided(True))
    outcome = gate.judge(few, prefer_small=False)
    outcome.promote()
    champion = client.get_model_version_by_alias("lenet5", "champion")
    assert int(champion.version) == 2
    assert champion.tags["champion.over"] == "1"
    assert "the first is better" in champion.tags["champion.verdict"]
    with pytest.raises(InputError, match="'champion' has been moved meanwhile"):
        outcome.promote()  # as if another process had been first
    gate.force(1).promote()
    champion = client.get_model_version_by_alias("lenet5", "champion")
    assert (int(champion.version), champion.tags["champion.verdict"]) == (1, "by force: not compared")


def test_versions_that_are_deleted_or_another_s_are_named(store: Store, params: Params, digits: Digits) -> None:
    folder, client = store
    first = register("modern-1", params)
    other = client.create_model_version("lenet5", f"{folder}/elsewhere")
    assert tracking.versions() == ([first], None)  # without our tags
    with pytest.raises(InputError, match=r"version 2: `lenet register` has not made it.*versions: 1"):
        gate.force(2)
    client.set_registered_model_alias("lenet5", "champion", other.version)
    with pytest.raises(InputError, match=r"version 2: `lenet register` has not made it"):
        gate.judge(digits, prefer_small=False)
    gate.force(1).promote()
    client.delete_model_version("lenet5", "1")
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias("lenet5", "champion")
    assert tracking.versions() == ([], None)
    assert register("modern-1", params).number == 3  # MLflow uses no number twice


def test_a_version_whose_model_is_another_network_is_refused(store: Store, params: Params, digits: Digits) -> None:
    _, client = store
    register("modern-1", params)
    gate.force(1).promote()
    register("original-tanh-1", params)
    client.set_model_version_tag("lenet5", "2", "weights.sha256", "0" * 64)
    with pytest.raises(InputError, match=r"version 2: its model is not the run of its tags"):
        gate.judge(digits[:4000], prefer_small=False)


def test_what_cannot_be_registered_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, client = store
    assert "nothing-1: no present run of this name" in refused("register nothing-1", monkeypatch, capsys)
    (found,) = [one for one in client.search_runs(["1"]) if one.info.run_name == "modern-1"]
    for model in client.search_logged_models(["1"], f"source_run_id = '{found.info.run_id}'"):
        client.delete_logged_model(model.model_id)
    assert "has no model; `lenet sync` adds it" in refused("register modern", monkeypatch, capsys)


@pytest.mark.slow
def test_the_commands_work_on_a_file_and_on_a_server(copy: Path, tmp_path: Path) -> None:
    def champion(status: int = 0, **settings: str) -> str:
        return run(*lenet_command("champion"), cwd=copy, status=status, **settings).stderr

    run(*lenet_command("register", "modern"), cwd=copy)
    assert "version 1, modern-1, is champion" in champion()
    assert "version 1 stays champion" in champion(1)
    with mlflow_server(tmp_path) as (_, address):
        there = {"MLFLOW_TRACKING_URI": address}
        run(*lenet_command("sync"), cwd=copy, **there)
        run(*lenet_command("register", "original-tanh"), cwd=copy, **there)
        assert "version 1, original-tanh-1, is champion" in champion(**there)


def test_two_that_move_the_alias_at_once_do_not_both_move_it(
    store: Store, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("modern-1", params)
    outcome = gate.force(1)
    monkeypatch.setattr(registry, "PATIENCE", 0.1)
    with journal.lock(registry.ALIAS, 1), pytest.raises(InputError):
        outcome.promote()
    assert tracking.versions()[1] is None
