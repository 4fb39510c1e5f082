"""By hand, ahead of requests, and what is said about it all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog.adapter import AdapterState, Revision
from catalog.status import WorkerState
from tests.catalog.values import an_adapter, revision
from tests.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from tests.waiting import wait_until
from tests.worker.served import (
    a_directory,
    never_ready,
    state_of,
    until_forgotten,
    until_serves,
    until_state,
    wanted,
)
from worker.outcomes import Failed, Rejected, UnknownModel
from worker.reconciler import Reconciler

Run = Callable[[int | None], None]


@pytest.fixture
async def run(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Start the background task, with this many adapters to load ahead."""
    monkeypatch.setattr("worker.reconciler._LOOK_SECONDS", 0.005)
    tasks: list[asyncio.Task[None]] = []
    yield lambda preload: tasks.append(asyncio.create_task(reconciler.run(preload=preload)))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def catalog_of(*digits: str) -> dict[str, object]:
    return {f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits}


# Loading ahead.


async def test_nothing_is_loaded_ahead_unless_asked_for(
    reconciler: Reconciler, run: Run, engine: FakeEngine
) -> None:
    reconciler.apply(catalog_of("1", "2"))  # type: ignore[arg-type]  # a dict of records
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    assert [handle.name for handle in engine.loads] == ["sql"]


async def test_as_many_as_asked_for_are_loaded_ahead(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(catalog_of("1", "2", "3"))  # type: ignore[arg-type]  # a dict of records
    run(2)
    await wait_until(lambda: len(engine.holds) == 2, timeout=5, description="two are loaded")
    reconciler.apply(wanted("a3", revision("c")))
    await until_serves(reconciler, "a3", revision("c"))
    assert len(store.sources) == 3, "the third was loaded by its request alone"


async def test_all_means_as_many_as_fit(reconciler: Reconciler, run: Run, engine: FakeEngine) -> None:
    reconciler.apply(catalog_of("1", "2", "3", "4", "5", "6"))  # type: ignore[arg-type]  # a dict of records
    run(None)
    await wait_until(lambda: len(engine.holds) == 4, timeout=5, description="four are loaded")
    assert engine.unloads == []


async def test_nothing_is_loaded_ahead_while_requests_are_under_way(
    reconciler: Reconciler, run: Run, engine: FakeEngine, table: FakeTable
) -> None:
    engine.in_use = {1}
    looks: list[int] = []
    reconciler.apply(catalog_of("1"))  # type: ignore[arg-type]  # a dict of records
    engine.is_idle = lambda: bool(looks.append(1)) or not engine.in_use  # type: ignore[method-assign]  # counts the looks
    run(None)
    await wait_until(lambda: len(looks) > 3, timeout=5, description="it has looked several times")
    assert engine.loads == []
    engine.in_use = set()
    await until_state(reconciler, "a1", WorkerState.LOADED)


async def test_what_cannot_be_loaded_ahead_does_not_keep_others_from_it(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, table: FakeTable
) -> None:
    table.taken = {"a1"}
    store.outcomes["a2"].append(rejected())
    store.outcomes["a3"].append(failed())
    reconciler.apply(catalog_of("1", "2", "3", "4"))  # type: ignore[arg-type]  # a dict of records
    run(None)
    await until_state(reconciler, "a4", WorkerState.LOADED)
    assert [state_of(reconciler, name) for name in ("a1", "a2", "a3")] == [
        WorkerState.REJECTED,
        WorkerState.REJECTED,
        WorkerState.FAILED,
    ]


# By hand.


async def test_a_directory_under_the_prefix_can_be_loaded_and_unloaded_by_hand(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, tmp_path: Path, no_grace: None
) -> None:
    run(0)
    path = a_directory(tmp_path, "drafts/sql")
    answer = await reconciler.load_by_hand("draft", str(path), in_place=False)
    assert answer == "Success: LoRA adapter 'draft' added successfully."
    assert (await reconciler.resolve("draft")).revision == store.by_hand
    assert (store.sources[0].path, store.sources[0].revision) == ("drafts/sql", None)
    assert reconciler.listed() == [], "vLLM's own table lists it"

    answer = await reconciler.unload_by_hand("draft")
    assert answer == "Success: LoRA adapter 'draft' removed successfully."
    await until_forgotten(reconciler, "draft")
    assert (engine.holds, store.pinned()) == ({}, [])
    with pytest.raises(UnknownModel):
        await reconciler.unload_by_hand("draft")


async def test_a_path_relative_to_the_prefix_will_do(
    reconciler: Reconciler, store: FakeStore, tmp_path: Path
) -> None:
    a_directory(tmp_path, "sql")
    await reconciler.load_by_hand("draft", "sql", in_place=False)
    assert store.sources[0].path == "sql"


@pytest.mark.parametrize("path", ["/etc", "../elsewhere", ".", "sql/../..", "link"])
async def test_nothing_outside_the_prefix_is_loaded_by_hand(
    reconciler: Reconciler, tmp_path: Path, path: str
) -> None:
    (tmp_path / "loras" / "link").symlink_to("/etc")
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.load_by_hand("draft", path, in_place=False)
    assert not any(reconciler.counts().values())


@pytest.mark.parametrize("path", ["with\0zero", "loop"])
async def test_a_path_that_leads_nowhere_is_refused_by_hand(
    reconciler: Reconciler, tmp_path: Path, path: str
) -> None:
    (tmp_path / "loras" / "loop").symlink_to("loop")
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.load_by_hand("draft", path, in_place=False)


async def test_nothing_is_loaded_by_hand_without_a_prefix(
    engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    reconciler = Reconciler(engine, table, store.prepare, prefix=None, capacity=2)
    with pytest.raises(PermissionError, match="--lora-dir-prefix"):
        await reconciler.load_by_hand("draft", "/loras/sql", in_place=False)


@pytest.mark.parametrize(("outcome", "kind"), [(rejected(), Rejected), (failed(), Failed)])
async def test_what_goes_wrong_by_hand_is_said_and_forgotten(
    reconciler: Reconciler, store: FakeStore, tmp_path: Path, outcome: Exception, kind: type[Exception]
) -> None:
    store.outcomes["sql"].append(outcome)
    with pytest.raises(kind):
        await reconciler.load_by_hand("draft", "sql", in_place=False)
    assert not any(reconciler.counts().values())
    reconciler.replace({})
    with pytest.raises(UnknownModel):
        await reconciler.resolve("draft")


async def test_what_is_discovered_is_neither_loaded_nor_unloaded_by_hand(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    with pytest.raises(Rejected, match="just ask for it"):
        await reconciler.load_by_hand("sql", "sql", in_place=False)
    with pytest.raises(Rejected, match="remove its directory"):
        await reconciler.unload_by_hand("sql")
    assert (await reconciler.resolve("sql")).revision == revision("a")


async def test_in_place_by_hand_overrides_what_is_discovered_until_it_is_unloaded(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    await reconciler.load_by_hand("sql", "drafts/sql", in_place=True)
    reconciler.apply(wanted("sql", revision("b")))
    assert (await reconciler.resolve("sql")).revision == store.by_hand
    await reconciler.unload_by_hand("sql")
    assert (await reconciler.resolve("sql")).revision == revision("b")


async def test_an_in_place_load_by_hand_that_goes_wrong_leaves_the_catalog_in_charge(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    store.outcomes["drafts/sql"].append(rejected())
    with pytest.raises(Rejected):
        await reconciler.load_by_hand("sql", "drafts/sql", in_place=True)
    reconciler.apply(wanted("sql", revision("b")))
    await until_serves(reconciler, "sql", revision("b"))


async def test_in_place_by_hand_serves_the_new_bytes_and_lets_the_old_ones_go(
    reconciler: Reconciler, run: Run, store: FakeStore, engine: FakeEngine, no_grace: None
) -> None:
    run(0)
    await reconciler.load_by_hand("draft", "sql", in_place=False)
    store.by_hand = Revision("f" * 64)
    await reconciler.load_by_hand("draft", "sql", in_place=True)
    assert (await reconciler.resolve("draft")).revision == "f" * 64
    await wait_until(
        lambda: engine.held_revisions() == [("draft", "f" * 64)], timeout=5, description="the old one went"
    )


async def test_what_was_loaded_by_hand_outlives_a_catalog_that_does_not_know_it(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    run(0)
    await reconciler.load_by_hand("draft", "sql", in_place=False)
    reconciler.replace(wanted("sql", revision("a")))
    reconciler.apply({"draft": None})
    assert (await reconciler.resolve("draft")).revision == store.by_hand


async def test_what_was_loaded_by_hand_comes_back_after_it_made_room_for_others(
    reconciler: Reconciler, store: FakeStore, table: FakeTable, no_grace: None
) -> None:
    await reconciler.load_by_hand("draft", "sql", in_place=False)
    reconciler.replace(catalog_of("1", "2", "3", "4"))  # type: ignore[arg-type]  # a dict of records
    for digit in "1234":
        await reconciler.resolve(f"a{digit}")
    assert "draft" not in table.served
    assert (await reconciler.resolve("draft")).revision == store.by_hand


# What is reported.


async def test_counts_say_how_many_adapters_are_in_each_state(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(catalog_of("1", "2", "3") | never_ready("a4", AdapterState.SETTLING))  # type: ignore[arg-type]
    store.outcomes["a2"].append(rejected())
    await reconciler.resolve("a1")
    with pytest.raises(Rejected):
        await reconciler.resolve("a2")
    counts = {state: count for state, count in reconciler.counts().items() if count}
    assert counts == {WorkerState.LOADED: 1, WorkerState.REJECTED: 1, WorkerState.LISTED: 1}


async def test_a_picture_leaves_out_what_the_catalog_says_already(reconciler: Reconciler) -> None:
    reconciler.apply(catalog_of("1", "2"))  # type: ignore[arg-type]  # a dict of records
    await reconciler.resolve("a1")
    picture = reconciler.picture()
    assert set(picture) == {"a1"}
    assert (picture["a1"].state, picture["a1"].loads) == (WorkerState.LOADED, 1)
    assert picture["a1"].load_seconds is not None


async def test_changes_are_told_once_and_ring_the_bell(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    assert reconciler.bell.is_set()
    assert reconciler.take_changes() == {"sql": None}
    assert not reconciler.bell.is_set()
    assert reconciler.take_changes() == {}
    await reconciler.resolve("sql")
    changes = reconciler.take_changes()
    assert changes["sql"] is not None
    assert changes["sql"].state is WorkerState.LOADED
    assert reconciler.take_changes() == {}


async def test_a_change_of_what_is_gone_says_that_nothing_is_left(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    reconciler.take_changes()
    reconciler.apply({"sql": None})
    assert reconciler.take_changes() == {"sql": None}


async def test_the_last_use_of_a_loaded_adapter_is_reported(
    reconciler: Reconciler, run: Run, table: FakeTable
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    assert reconciler.picture()["sql"].last_used is None
    table.touch("sql", ago_seconds=10)
    await wait_until(
        lambda: reconciler.picture()["sql"].last_used is not None, timeout=5, description="the use shows"
    )
    last_used = reconciler.picture()["sql"].last_used
    assert last_used is not None
    assert timedelta(seconds=9) < datetime.now(UTC) - last_used < timedelta(seconds=20)


async def test_adapters_are_offered_once_they_have_been_ready_loaded_or_not(reconciler: Reconciler) -> None:
    reconciler.apply(catalog_of("2", "1") | never_ready("a3", AdapterState.SETTLING))  # type: ignore[arg-type]
    await reconciler.resolve("a2")
    assert [adapter.name for adapter in reconciler.listed()] == ["a1", "a2"]
