"""What is said of each adapter, of all of them, and of what has changed."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import Rejected
from loradrop.worker.residency_metrics import Residents
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable, rejected
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.conftest import Run
from tests.worker.served import (
    catalog_of,
    never_ready,
    until_serves,
    until_state,
    wanted,
)


async def test_counts_say_how_many_adapters_are_in_each_state(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(catalog_of("1", "2", "3") | never_ready("a4", AdapterState.SETTLING))
    reconciler.apply(never_ready("a5", AdapterState.INCOMPLETE))
    store.outcomes["a2"].append(rejected())
    await reconciler.resolve("a1")
    with pytest.raises(Rejected):
        await reconciler.resolve("a2")
    counts = {state: count for state, count in reconciler.status.counts().items() if count}
    assert counts == {WorkerState.LOADED: 1, WorkerState.REJECTED: 1, WorkerState.LISTED: 1}


async def test_a_picture_leaves_out_what_the_catalog_says_already(reconciler: Reconciler) -> None:
    reconciler.apply(catalog_of("1", "2"))
    await reconciler.resolve("a1")
    picture = reconciler.status.snapshot()
    assert set(picture) == {"a1"}
    assert (picture["a1"].state, picture["a1"].loads) == (WorkerState.LOADED, 1)
    assert picture["a1"].load_seconds is not None


async def test_changes_are_reported_once_and_set_the_wakeup(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    assert reconciler.status.wakeup.is_set()
    assert reconciler.status.take_changes() == {"sql": None}
    assert not reconciler.status.wakeup.is_set()
    assert reconciler.status.take_changes() == {}
    await reconciler.resolve("sql")
    changes = reconciler.status.take_changes()
    assert changes["sql"] is not None
    assert changes["sql"].state is WorkerState.LOADED
    assert reconciler.status.take_changes() == {}


async def test_a_change_of_what_is_gone_says_that_nothing_is_left(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    reconciler.status.take_changes()
    reconciler.apply({"sql": None})
    assert reconciler.status.take_changes() == {"sql": None}


async def test_the_last_use_of_a_loaded_adapter_is_reported(
    reconciler: Reconciler, run: Run, table: FakeTable
) -> None:
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    assert reconciler.status.snapshot()["sql"].last_used is None
    table.touch("sql", ago_seconds=7200)
    await wait_until(
        lambda: reconciler.status.snapshot()["sql"].last_used is not None,
        timeout=5,
        description="the use shows",
    )
    last_used = reconciler.status.snapshot()["sql"].last_used
    assert last_used is not None
    assert timedelta(hours=1.9) < datetime.now(UTC) - last_used < timedelta(hours=3)


async def test_adapters_are_offered_once_they_have_been_ready_loaded_or_not(reconciler: Reconciler) -> None:
    reconciler.apply(catalog_of("2", "1") | never_ready("a3", AdapterState.SETTLING))
    await reconciler.resolve("a2")
    assert [adapter.name for adapter in reconciler.listed()] == ["a1", "a2"]


async def test_every_revision_that_is_loading_loaded_or_draining_is_reported(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    old = await reconciler.resolve("sql")
    engine.in_use = {old.lora_id}
    reconciler.apply(wanted("sql", revision("b")))
    await until_serves(reconciler, "sql", revision("b"))
    engine.gate.clear()
    reconciler.apply(wanted("sql", revision("c")))
    await wait_until(lambda: len(engine.loads) == 3, timeout=5, description="the third is loading")

    def shown() -> list[tuple[str, WorkerState, bool, bool]]:
        held = reconciler.status.snapshot()["sql"].revisions
        return [(each.revision[0], each.state, each.resident, each.pinned) for each in held]

    assert shown() == [
        ("c", WorkerState.LOADING, False, True),
        ("b", WorkerState.LOADED, True, True),
        ("a", WorkerState.DRAINING, True, True),
    ]
    assert reconciler.status.totals() == (2, 3)
    assert reconciler.status.take_changes()["sql"] == reconciler.status.snapshot()["sql"]
    engine.gate.set()
    await until_serves(reconciler, "sql", revision("c"))
    assert [state for _, state, _, _ in shown()] == [
        WorkerState.LOADED,
        WorkerState.DRAINING,
        WorkerState.DRAINING,
    ]
    assert reconciler.status.totals() == (3, 3)


async def test_an_adapter_that_made_room_for_others_is_listed_and_has_nothing_in_the_engine(
    reconciler: Reconciler, no_grace: None
) -> None:
    reconciler.apply(catalog_of("1", "2", "3", "4", "5"))
    for digit in "12345":
        await reconciler.resolve(f"a{digit}")
    report = reconciler.status.snapshot()["a1"]
    assert (report.state, report.loads, report.revisions) == (WorkerState.LISTED, 1, ())


async def test_what_drains_is_counted_though_nothing_is_desired_of_it(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.in_use = {(await reconciler.resolve("sql")).lora_id}
    reconciler.apply({"sql": None})
    assert reconciler.status.counts()[WorkerState.DRAINING] == 1


async def test_a_later_use_is_reported_too(reconciler: Reconciler, run: Run, table: FakeTable) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    table.touch("sql", ago_seconds=7200)
    run(0)

    def last_used_hours_ago() -> float | None:
        last_used = reconciler.status.snapshot()["sql"].last_used
        return None if last_used is None else (datetime.now(UTC) - last_used) / timedelta(hours=1)

    await wait_until(lambda: last_used_hours_ago() is not None, timeout=5, description="the use shows")
    reconciler.status.take_changes()
    table.touch("sql", ago_seconds=3600)
    await wait_until(
        lambda: (last_used_hours_ago() or 9.0) < 1.5, timeout=5, description="the later use shows"
    )
    assert "sql" in reconciler.status.take_changes()


async def test_residents_are_what_answers_at_once_and_what_is_being_loaded(
    reconciler: Reconciler, store: FakeStore, table: FakeTable
) -> None:
    reconciler.apply(catalog_of("1", "2", "3"))
    await reconciler.resolve("a1")
    await reconciler.resolve("a2")
    table.touch("a1")
    store.gate.clear()
    waiting = asyncio.create_task(reconciler.resolve("a3"))
    await until_state(reconciler, "a3", WorkerState.LOADING)
    residents = reconciler.status.residents(["static"], 2)
    assert residents == Residents(("a1", "a2", "static"), ("a3",), places=5, on_device=2)
    store.gate.set()
    await waiting
