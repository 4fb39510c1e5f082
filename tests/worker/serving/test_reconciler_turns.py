"""Updates and the turns they wait for: what is asked for does not wait, what was superseded is not loaded."""

import asyncio

import pytest

from loradrop.catalog.status import WorkerState
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter, revision
from tests.worker.served import until_forgotten, until_serves, until_state, wanted

long_pauses = pytest.mark.parametrize(
    "timings",
    [Timings(visit_seconds=0.005, grace_seconds=0.0, shortest_pause_seconds=3600.0)],
    ids=["long pauses"],
)


def is_waiting_for_its_turn(reconciler: Reconciler, name: str) -> bool:
    """Whether a revision of `name` has its bytes pinned, and another one is loaded."""
    states = {each.state for each in reconciler.status.snapshot()[name].revisions}
    return states == {WorkerState.LOADING, WorkerState.LOADED}


async def test_only_the_last_of_many_updates_has_to_be_loaded(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("0")))
    await running.resolve("sql")
    engine.gate.clear()
    for digit in "123456789":
        running.apply(wanted("sql", revision(digit)))
    engine.gate.set()
    await until_serves(running, "sql", revision("9"))
    await wait_until(lambda: len(engine.holds) == 1, timeout=5, description="only the last is held")
    assert len(engine.loads) <= 3
    assert store.pinned() == [revision("9")]


@long_pauses
async def test_updates_of_many_adapters_at_once_leave_the_engine_alone_between_two_of_them(
    running: Reconciler, engine: FakeEngine
) -> None:
    names = [f"a{digit}" for digit in "123"]
    running.apply({name: an_adapter(name, revision=revision("1")) for name in names})
    for name in names:
        await running.resolve(name)
    running.apply({name: an_adapter(name, revision=revision("2")) for name in names})
    await wait_until(
        lambda: all(is_waiting_for_its_turn(running, name) for name in names),
        timeout=5,
        description="three updates wait for their turn",
    )
    assert [(await running.resolve(name)).revision for name in names] == [revision("1")] * 3
    running.apply(wanted("a5", revision("1")))
    assert (await running.resolve("a5")).revision == revision("1"), "what is asked for does not wait"


@long_pauses
async def test_an_update_that_waits_for_its_turn_comes_at_once_when_its_name_has_to_make_room(
    running: Reconciler, engine: FakeEngine, table: FakeTable
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    digits = "1234"
    running.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    await running.resolve("a1")
    running.apply(wanted("sql", revision("b")))
    await wait_until(
        lambda: is_waiting_for_its_turn(running, "sql"),
        timeout=5,
        description="the update waits for its turn",
    )
    for digit in "234":
        await running.resolve(f"a{digit}")
    assert "sql" not in table.served, "it made room"
    assert (await running.resolve("sql")).revision == revision("b")


@pytest.mark.parametrize("turns", range(6))
async def test_an_update_published_the_moment_the_one_before_is_served_is_not_missed(
    reconciler: Reconciler, table: FakeTable, store: FakeStore, turns: int
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    reconciler.apply(wanted("sql", revision("b")))
    while table.served["sql"].revision != revision("b"):  # noqa: ASYNC110 - on every turn of the loop
        await asyncio.sleep(0)
    for _ in range(turns):  # its task ends, and later the others hear of it
        await asyncio.sleep(0)
    store.gate.clear()
    for _ in range(3):
        reconciler.apply(wanted("sql", revision("c")))
        for _ in range(5):
            await asyncio.sleep(0)
    store.gate.set()
    await until_serves(reconciler, "sql", revision("c"))
    assert [source.revision for source in store.sources] == [revision(digit) for digit in "abc"]


async def test_an_update_of_an_adapter_that_is_removed_before_its_turn_never_reaches_the_engine(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    handle = await running.resolve("sql")
    engine.in_use = {handle.lora_id}  # never idle
    store.gate.clear()
    running.apply(wanted("sql", revision("b")))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="the update is copied")
    running.apply({"sql": None})
    store.gate.set()
    await until_state(running, "sql", WorkerState.DRAINING)
    assert [each.revision for each in engine.loads] == [revision("a")]
    assert store.pinned() == [revision("a")]
    engine.in_use = set()
    await until_forgotten(running, "sql")


async def test_of_many_updates_that_wait_for_their_turn_only_the_last_is_loaded(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("0")))
    await running.resolve("sql")
    store.gate.clear()
    running.apply(wanted("sql", revision("1")))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="the first is copied")
    for digit in "23456789":
        running.apply(wanted("sql", revision(digit)))
    store.gate.set()
    await until_serves(running, "sql", revision("9"))
    assert [each.revision for each in engine.loads] == [revision("0"), revision("9")]


async def test_what_was_superseded_before_its_turn_gives_way_to_what_is_desired_by_then(
    reconciler: Reconciler, table: FakeTable, store: FakeStore
) -> None:
    """Nothing but the task that gave up brings the last one: no request asks, and no visit is made."""
    reconciler.apply(wanted("sql", revision("0")))
    await reconciler.resolve("sql")
    store.gate.clear()
    reconciler.apply(wanted("sql", revision("1")))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="the first is copied")
    reconciler.apply(wanted("sql", revision("2")))
    store.gate.set()
    await wait_until(
        lambda: table.served["sql"].revision == revision("2"), timeout=5, description="the last is served"
    )
