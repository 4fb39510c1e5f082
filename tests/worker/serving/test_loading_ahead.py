"""Adapters loaded ahead of their first request: as many as asked for, and never in the way of a request."""

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WorkerState
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.conftest import Run
from tests.worker.served import (
    catalog_of,
    never_ready,
    state_of,
    until_serves,
    until_state,
    wanted,
)


async def test_nothing_is_loaded_ahead_unless_asked_for(
    reconciler: Reconciler, run: Run, engine: FakeEngine
) -> None:
    reconciler.apply(catalog_of("1", "2"))
    run(0)
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    assert [handle.name for handle in engine.loads] == ["sql"]


async def test_as_many_as_asked_for_are_loaded_ahead(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(catalog_of("1", "2", "3"))
    run(2)
    await wait_until(lambda: len(engine.holds) == 2, timeout=5, description="two are loaded")
    checks = engine.idle_checks
    await wait_until(lambda: engine.idle_checks > checks + 3, timeout=5, description="it has looked again")
    assert len(engine.holds) == 2
    reconciler.apply(wanted("a3", revision("c")))
    await until_serves(reconciler, "a3", revision("c"))
    assert len(store.sources) == 3, "the third was loaded by its request alone"


async def test_all_means_as_many_as_fit(reconciler: Reconciler, run: Run, engine: FakeEngine) -> None:
    reconciler.apply(catalog_of("1", "2", "3", "4", "5", "6"))
    run(None)
    await wait_until(lambda: len(engine.holds) == 4, timeout=5, description="four are loaded")
    assert engine.unloads == []


async def test_nothing_is_loaded_ahead_while_requests_are_under_way(
    reconciler: Reconciler, run: Run, engine: FakeEngine, table: FakeTable
) -> None:
    engine.in_use = {1}
    reconciler.apply(catalog_of("1"))
    run(None)
    await wait_until(lambda: engine.idle_checks > 3, timeout=5, description="it has checked several times")
    assert engine.loads == []
    engine.in_use = set()
    await until_state(reconciler, "a1", WorkerState.LOADED)


async def test_what_cannot_be_loaded_ahead_does_not_keep_others_from_it(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, table: FakeTable
) -> None:
    table.taken = {"a1"}
    store.outcomes["a2"].append(rejected())
    store.outcomes["a3"].append(failed())
    reconciler.apply(catalog_of("1", "2", "3", "4"))
    run(None)
    await until_state(reconciler, "a4", WorkerState.LOADED)
    assert [state_of(reconciler, name) for name in ("a1", "a2", "a3")] == [
        WorkerState.REJECTED,
        WorkerState.REJECTED,
        WorkerState.FAILED,
    ]


async def test_one_is_loaded_ahead_at_a_time(
    reconciler: Reconciler, run: Run, engine: FakeEngine, store: FakeStore, table: FakeTable
) -> None:
    reconciler.apply(catalog_of("1", "2", "3"))
    await reconciler.resolve("a3")
    store.gate.clear()
    run(3)
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="another is copied")
    visits = len(table.visits)
    await wait_until(lambda: len(table.visits) > visits + 3, timeout=5, description="it has visited a3 again")
    assert len(store.sources) == 2
    store.gate.set()
    await wait_until(lambda: len(engine.holds) == 3, timeout=5, description="three are loaded")


async def test_what_was_never_ready_is_not_loaded_ahead(
    reconciler: Reconciler, run: Run, store: FakeStore
) -> None:
    reconciler.apply(never_ready("a0", AdapterState.INCOMPLETE) | catalog_of("1"))
    run(None)
    await until_state(reconciler, "a1", WorkerState.LOADED)
    assert [source.path for source in store.sources] == ["a1"]


async def test_nothing_is_loaded_ahead_while_an_update_is_under_way(
    reconciler: Reconciler, run: Run, store: FakeStore, table: FakeTable
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    store.gate.clear()
    reconciler.apply(catalog_of("1") | wanted("sql", revision("b")))
    run(None)
    visits = len(table.visits)
    await wait_until(
        lambda: len(table.visits) > visits + 3, timeout=5, description="it has visited sql again"
    )
    assert [source.revision for source in store.sources] == [revision("a"), revision("b")]
    store.gate.set()
    await until_state(reconciler, "a1", WorkerState.LOADED)
