"""What the engine holds: who answers for a name, draining, revival, and pins that end with what they keep."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Source
from testkit.fakes import FakeEngine, FakeStore, FakeTable, failed
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.ground import GRACE_SECONDS, Clock, Ground


async def test_a_loaded_revision_answers_for_its_name(ground: Ground, table: FakeTable) -> None:
    handle = await ground.load("sql", revision("a"))
    assert table.served == {"sql": handle}
    assert ground.residency.revision_of("sql") == revision("a")
    assert ground.residency.handle_of("sql") == handle
    assert set(ground.changed) == {"sql"}


async def test_a_name_nothing_was_loaded_for_points_at_nothing(ground: Ground) -> None:
    assert ground.residency.revision_of("sql") is None
    assert ground.residency.handle_of("sql") is None
    assert not ground.residency.has_loaded("sql")


async def test_an_update_leaves_the_old_revision_to_the_requests_that_use_it(
    ground: Ground, engine: FakeEngine, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    old = await ground.load("sql", revision("a"))
    engine.in_use = {old.lora_id}
    new = await ground.load("sql", revision("b"))
    later()
    await ground.residency.unload_unused()
    assert table.served == {"sql": new}
    assert engine.held_revisions() == [("sql", revision("a")), ("sql", revision("b"))]

    engine.in_use = set()
    await ground.residency.unload_unused()
    assert engine.held_revisions() == [("sql", revision("b"))]
    assert store.pinned() == [revision("b")]


async def test_what_leaves_stays_for_the_grace_period_though_no_request_is_seen(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    await ground.residency.unload_unused()
    assert engine.held_revisions() == [("sql", revision("a"))]
    assert ground.residency.has_loaded("sql")

    later()
    await ground.residency.unload_unused()
    assert engine.held_revisions() == []
    assert store.pinned() == []
    assert not ground.residency.has_loaded("sql")


async def test_a_revision_that_returns_while_draining_is_never_unloaded(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("sql", revision("b"))
    again = await ground.load("sql", revision("a"))
    later()
    await ground.residency.unload_unused()
    assert ground.residency.handle_of("sql") == again
    assert engine.held_revisions() == [("sql", revision("a"))]
    assert [handle.revision for handle in engine.unloads] == [revision("b")]
    assert store.pinned() == [revision("a")]


async def test_the_same_revision_served_twice_keeps_one_pin(ground: Ground, store: FakeStore) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("sql", revision("a"))
    assert store.pinned() == [revision("a")]
    assert len(ground.residency.revisions_of("sql")) == 1


async def test_a_revision_that_returned_and_left_again_before_its_turn_came_loses_no_pin(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    old = await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    engine.gate.clear()

    async def come_and_go() -> None:
        await ground.load("sql", revision("a"))
        ground.residency.drain("sql")

    async with asyncio.TaskGroup() as group:
        group.create_task(come_and_go())
        await asyncio.sleep(0)  # it holds the engine now
        group.create_task(ground.residency.unload_unused())
        await asyncio.sleep(0)  # and this waits for its turn
        later()
        engine.gate.set()
    assert (store.pinned(), engine.unloads) == ([revision("a")], []), "its grace period began anew"
    later()
    await ground.residency.unload_unused()
    assert store.pinned() == []
    assert engine.held_revisions() == []
    assert not ground.residency.names()
    assert [handle.lora_id for handle in engine.unloads] == [old.lora_id]


async def test_the_same_revision_let_go_twice_keeps_one_pin(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    """Two loads of it were superseded before they served."""
    for _ in range(2):
        ground.residency.drain_revision(await ground.loaded("sql", revision("a")))
    assert store.pinned() == [revision("a")]
    later()
    await ground.residency.unload_unused()
    assert (store.pinned(), engine.holds) == ([], {})


async def test_a_load_that_fails_keeps_no_pin(ground: Ground, engine: FakeEngine, store: FakeStore) -> None:
    engine.outcomes["sql"].append(failed())
    with pytest.raises(Failed):
        await ground.load("sql", revision("a"))
    assert store.pinned() == []
    assert ground.residency.revision_of("sql") is None


async def test_a_load_that_is_cancelled_keeps_no_pin(
    ground: Ground, engine: FakeEngine, store: FakeStore
) -> None:
    engine.gate.clear()
    task = asyncio.create_task(ground.load("sql", revision("a")))
    await wait_until(lambda: bool(engine.loads), timeout=5, description="it is loading")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.pinned() == []


async def test_an_engine_that_cannot_unload_does_not_stop_what_comes_after(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    engine.unload_error = RuntimeError("engine is busy dying")
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    ground.residency.drain("sql")
    ground.residency.drain("code")
    later()
    await ground.residency.unload_unused()
    assert not ground.residency.names()
    assert store.pinned() == []


async def test_withdrawing_a_name_that_serves_nothing_of_ours_leaves_it_alone(
    ground: Ground, table: FakeTable
) -> None:
    table.taken = {"static_module"}
    ground.residency.drain("static_module")
    assert table.taken == {"static_module"}


async def test_names_are_those_that_have_anything_in_the_engine(ground: Ground) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    ground.residency.drain("sql")
    assert ground.residency.names() == {"sql", "code"}


async def test_letting_go_of_a_second_load_of_what_serves_releases_its_pin_and_nothing_else(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    handle = await ground.load("sql", revision("a"))
    ground.residency.drain_revision(await ground.loaded("sql", revision("a")))
    later()
    await ground.residency.unload_unused()
    assert ground.residency.handle_of("sql") == handle
    assert engine.unloads == []
    assert store.pinned() == [revision("a")]


async def test_what_was_loaded_again_while_it_left_is_not_unloaded_before_it_serves(
    ground: Ground, engine: FakeEngine, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    handle = await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    later()
    pinned = await store.prepare(Source(Path("/loras"), "sql", revision("a")))
    loaded = await ground.residency.load("sql", pinned)
    await ground.residency.unload_unused()  # it waited for the load, and has the next turn
    ground.residency.serve(loaded)
    assert table.served == {"sql": handle}
    assert engine.held_revisions() == [("sql", revision("a"))]
    assert store.pinned() == [revision("a")]


@pytest.mark.parametrize("leaves", [True, False])
async def test_what_is_loaded_is_not_loaded_again_so_no_failure_takes_it_from_its_requests(
    ground: Ground, engine: FakeEngine, store: FakeStore, *, leaves: bool
) -> None:
    """A failed load is cleaned up under its id: the id that requests, and maybe the name, are using."""
    old = await ground.load("sql", revision("a"))
    if leaves:
        await ground.load("sql", revision("b"))
    engine.in_use = {old.lora_id}
    engine.outcomes["sql"].append(failed())
    assert await ground.load("sql", revision("a")) == old
    assert ("sql", revision("a")) in engine.held_revisions()
    assert ground.residency.handle_of("sql") == old


async def test_what_has_drained_is_told_once_it_has_left_the_engine(
    ground: Ground, engine: FakeEngine, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    later()
    ground.changed.clear()
    engine.unload_gate.clear()
    unloading = asyncio.create_task(ground.residency.unload_unused())
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="it is unloading")
    assert ground.changed == []
    engine.unload_gate.set()
    await unloading
    assert ground.changed == ["sql"]


async def test_the_grace_period_is_over_to_the_moment(
    ground: Ground, engine: FakeEngine, clock: Clock
) -> None:
    await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    clock.advance(GRACE_SECONDS - 0.001)
    await ground.residency.unload_unused()
    assert engine.unloads == []
    clock.advance(0.001)
    await ground.residency.unload_unused()
    assert len(engine.unloads) == 1


async def test_a_revision_that_serves_again_before_its_turn_to_be_unloaded_stays(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    ground.residency.drain("sql")
    later()
    engine.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(ground.load("code", revision("b")))
        await wait_until(lambda: len(engine.loads) == 2, timeout=5, description="it holds the engine")
        group.create_task(ground.load("sql", revision("a")))
        for _ in range(5):
            await asyncio.sleep(0)  # it is next
        group.create_task(ground.residency.unload_unused())
        for _ in range(5):
            await asyncio.sleep(0)  # and this after it
        engine.gate.set()
    assert ground.residency.revision_of("sql") == revision("a")
    assert engine.unloads == []
    assert store.pinned() == [revision("a"), revision("b")]


async def test_a_name_changes_with_each_revision_that_begins_to_drain(
    ground: Ground, later: Callable[[], None]
) -> None:
    ground.residency.drain_revision(await ground.loaded("code", revision("b")))
    await ground.load("sql", revision("a"))
    ground.changed.clear()
    ground.residency.drain("sql")
    assert ground.changed == ["sql"]
    later()
    await ground.residency.unload_unused()
    ground.changed.clear()
    ground.residency.drain_revision(await ground.loaded("math", revision("c")))
    assert ground.changed == ["math", "math"], "it loads, and drains"
