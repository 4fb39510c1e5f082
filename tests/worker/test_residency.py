"""What the engine holds: room, draining, revival, and pins that end with what they keep."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.adapter import Revision
from tests.catalog.values import revision
from tests.fakes import FakeEngine, FakeStore, FakeTable, failed
from tests.waiting import wait_until
from worker.files import Source
from worker.handle import Handle
from worker.outcomes import Failed
from worker.residency import Residency


class _Ground:
    def __init__(self, engine: FakeEngine, table: FakeTable, store: FakeStore) -> None:
        self.changed: list[str] = []
        self.residency = Residency(engine, table, capacity=2, changed=self.changed.append)
        self._store = store

    async def load(self, name: str, wanted: Revision, *, attempt: int = 0) -> Handle:
        pinned = await self._store.prepare(Source(Path("/loras"), name, wanted))
        handle = Handle.of(name, wanted, pinned.directory, attempt=attempt)
        self.residency.serve(await self.residency.load(handle, pinned))
        return handle


@pytest.fixture
def ground(engine: FakeEngine, table: FakeTable, store: FakeStore) -> _Ground:
    return _Ground(engine, table, store)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the grace period be over from now on."""
    return lambda: monkeypatch.setattr("worker.residency.GRACE_SECONDS", -1.0)


async def test_a_loaded_revision_answers_for_its_name(ground: _Ground, table: FakeTable) -> None:
    handle = await ground.load("sql", revision("a"))
    assert table.served == {"sql": handle}
    assert ground.residency.revision_of("sql") == revision("a")
    assert ground.residency.handle_of("sql") == handle
    assert set(ground.changed) == {"sql"}


async def test_a_name_nothing_was_loaded_for_points_at_nothing(ground: _Ground) -> None:
    assert ground.residency.revision_of("sql") is None
    assert ground.residency.handle_of("sql") is None
    assert not ground.residency.is_leaving("sql")


async def test_an_update_leaves_the_old_revision_to_the_requests_that_use_it(
    ground: _Ground, engine: FakeEngine, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    old = await ground.load("sql", revision("a"))
    engine.in_use = {old.lora_id}
    new = await ground.load("sql", revision("b"))
    later()
    await ground.residency.free_unused()
    assert table.served == {"sql": new}
    assert engine.held_revisions() == [("sql", revision("a")), ("sql", revision("b"))]

    engine.in_use = set()
    await ground.residency.free_unused()
    assert engine.held_revisions() == [("sql", revision("b"))]
    assert store.pinned() == [revision("b")]


async def test_what_leaves_stays_for_the_grace_period_though_no_request_is_seen(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    ground.residency.withdraw("sql")
    await ground.residency.free_unused()
    assert engine.held_revisions() == [("sql", revision("a"))]
    assert ground.residency.is_leaving("sql")

    later()
    await ground.residency.free_unused()
    assert engine.held_revisions() == []
    assert store.pinned() == []
    assert not ground.residency.is_leaving("sql")


async def test_a_revision_that_returns_while_draining_is_never_unloaded(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("sql", revision("b"))
    again = await ground.load("sql", revision("a"))
    later()
    await ground.residency.free_unused()
    assert ground.residency.handle_of("sql") == again
    assert engine.held_revisions() == [("sql", revision("a"))]
    assert [handle.revision for handle in engine.unloads] == [revision("b")]
    assert store.pinned() == [revision("a")]


async def test_the_same_revision_served_twice_keeps_one_pin(ground: _Ground, store: FakeStore) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("sql", revision("a"))
    assert store.pinned() == [revision("a")]
    assert not ground.residency.is_leaving("sql")


async def test_a_revision_that_returned_and_left_again_before_its_turn_came_loses_no_pin(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    old = await ground.load("sql", revision("a"))
    ground.residency.withdraw("sql")
    engine.gate.clear()

    async def come_and_go() -> None:
        await ground.load("sql", revision("a"))
        ground.residency.withdraw("sql")

    async with asyncio.TaskGroup() as group:
        group.create_task(come_and_go())
        await asyncio.sleep(0)  # it holds the engine now
        group.create_task(ground.residency.free_unused())
        await asyncio.sleep(0)  # and this waits for its turn
        later()
        engine.gate.set()
    assert store.pinned() == []
    assert engine.held_revisions() == []
    assert not ground.residency.names()
    assert [handle.lora_id for handle in engine.unloads] == [old.lora_id]


async def test_the_same_revision_let_go_twice_keeps_one_pin(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    """Two loads of it were superseded before they served."""
    for _ in range(2):
        pinned = await store.prepare(Source(Path("/loras"), "sql", revision("a")))
        handle = Handle.of("sql", revision("a"), pinned.directory, attempt=0)
        ground.residency.leave(await ground.residency.load(handle, pinned))
    assert store.pinned() == [revision("a")]
    later()
    await ground.residency.free_unused()
    assert (store.pinned(), engine.holds) == ([], {})


async def test_a_load_that_fails_keeps_no_pin(ground: _Ground, engine: FakeEngine, store: FakeStore) -> None:
    engine.outcomes["sql"].append(failed())
    with pytest.raises(Failed):
        await ground.load("sql", revision("a"))
    assert store.pinned() == []
    assert ground.residency.revision_of("sql") is None


async def test_a_load_that_is_cancelled_keeps_no_pin(
    ground: _Ground, engine: FakeEngine, store: FakeStore
) -> None:
    engine.gate.clear()
    task = asyncio.create_task(ground.load("sql", revision("a")))
    await wait_until(lambda: bool(engine.loads), timeout=5, description="it is loading")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.pinned() == []


async def test_room_is_made_by_the_name_unused_for_longest(
    ground: _Ground, engine: FakeEngine, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    table.touch("sql")
    later()
    await ground.load("math", revision("c"))
    assert engine.held_revisions() == [("math", revision("c")), ("sql", revision("a"))]
    assert set(table.served) == {"math", "sql"}
    assert store.pinned() == [revision("a"), revision("c")]
    assert ground.changed[-2:] == ["code", "math"]


async def test_room_is_never_made_by_what_a_request_uses(
    ground: _Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    used = await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    later()
    engine.in_use = {used.lora_id}
    await ground.load("math", revision("c"))
    assert set(table.served) == {"math", "sql"}


async def test_room_is_never_made_by_what_was_just_asked_for(ground: _Ground, table: FakeTable) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    table.touch("sql")
    table.touch("code")
    await ground.load("math", revision("c"))
    assert set(table.served) == {"sql", "code", "math"}


async def test_room_is_never_made_by_what_was_just_loaded_for_a_request_that_is_still_starting(
    ground: _Ground, table: FakeTable
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    assert set(table.served) == {"sql", "code", "math"}


async def test_a_name_that_goes_while_room_is_made_is_no_obstacle(
    ground: _Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    later()
    engine.unload_gate.clear()
    loading = asyncio.create_task(ground.load("chat", revision("d")))
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="room is being made")
    ground.residency.withdraw("code")
    ground.residency.withdraw("math")
    engine.unload_gate.set()
    await loading
    assert set(table.served) == {"chat"}


async def test_a_name_that_is_asked_for_while_room_is_made_stays(
    ground: _Ground, engine: FakeEngine, table: FakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    monkeypatch.setattr("worker.residency.GRACE_SECONDS", 0.0)
    engine.unload_gate.clear()
    loading = asyncio.create_task(ground.load("chat", revision("d")))
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="room is being made")
    for name in ("code", "math"):
        table.touch(name, ago_seconds=-5.0)
    engine.unload_gate.set()
    await loading
    assert set(table.served) == {"code", "math", "chat"}


async def test_there_is_room_below_the_limit_and_the_capacity(ground: _Ground) -> None:
    assert ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    await ground.load("sql", revision("a"))
    assert not ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    ground.residency.withdraw("sql")
    await ground.load("code", revision("b"))
    assert not ground.residency.has_room(99), "what is leaving still takes its place"


async def test_an_engine_that_cannot_unload_does_not_stop_what_comes_after(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    engine.unload_error = RuntimeError("engine is busy dying")
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    ground.residency.withdraw("sql")
    ground.residency.withdraw("code")
    later()
    await ground.residency.free_unused()
    assert not ground.residency.names()
    assert store.pinned() == []


async def test_withdrawing_a_name_that_serves_nothing_of_ours_leaves_it_alone(
    ground: _Ground, table: FakeTable
) -> None:
    table.taken = {"static_module"}
    ground.residency.withdraw("static_module")
    assert table.taken == {"static_module"}


async def test_names_are_those_that_have_anything_in_the_engine(ground: _Ground) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    ground.residency.withdraw("sql")
    assert ground.residency.names() == {"sql", "code"}


async def test_letting_go_of_a_second_load_of_what_serves_releases_its_pin_and_nothing_else(
    ground: _Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    handle = await ground.load("sql", revision("a"))
    pinned = await store.prepare(Source(Path("/loras"), "sql", revision("a")))
    ground.residency.leave(await ground.residency.load(handle, pinned))
    later()
    await ground.residency.free_unused()
    assert ground.residency.handle_of("sql") == handle
    assert engine.unloads == []
    assert store.pinned() == [revision("a")]
