"""Room in the engine: made by what no request uses, never by what one does."""

import asyncio
from collections.abc import Callable

from testkit.fakes import FakeEngine, FakeStore, FakeTable
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.ground import Clock, Ground


async def test_room_is_made_by_the_name_unused_for_longest(
    ground: Ground,
    engine: FakeEngine,
    table: FakeTable,
    store: FakeStore,
    clock: Clock,
    later: Callable[[], None],
) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    clock.advance(1.0)
    table.touch("sql")
    later()
    await ground.load("math", revision("c"))
    assert engine.held_revisions() == [("math", revision("c")), ("sql", revision("a"))]
    assert set(table.served) == {"math", "sql"}
    assert store.pinned() == [revision("a"), revision("c")]
    assert ground.changed[-2:] == ["code", "math"]


async def test_room_is_never_made_by_what_a_request_uses(
    ground: Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    used = await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    later()
    engine.in_use = {used.lora_id}
    await ground.load("math", revision("c"))
    assert set(table.served) == {"math", "sql"}


async def test_room_is_never_made_by_what_was_just_asked_for(ground: Ground, table: FakeTable) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    table.touch("sql")
    table.touch("code")
    await ground.load("math", revision("c"))
    assert set(table.served) == {"sql", "code", "math"}


async def test_room_is_never_made_by_what_was_just_loaded_for_a_request_that_is_still_starting(
    ground: Ground, table: FakeTable
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    assert set(table.served) == {"sql", "code", "math"}


async def test_what_a_burst_left_beyond_the_capacity_is_unloaded_once_it_is_unused(
    ground: Ground, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    await ground.residency.unload_unused()
    assert set(table.served) == {"sql", "code", "math"}
    later()
    await ground.residency.unload_unused()
    assert set(table.served) == {"code", "math"}
    assert store.pinned() == [revision("b"), revision("c")]


async def test_a_name_that_goes_while_room_is_made_is_no_obstacle(
    ground: Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    later()
    engine.unload_gate.clear()
    loading = asyncio.create_task(ground.load("chat", revision("d")))
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="room is being made")
    ground.residency.drain("code")
    ground.residency.drain("math")
    engine.unload_gate.set()
    await loading
    assert set(table.served) == {"chat"}


async def test_a_name_that_is_asked_for_while_room_is_made_stays(
    ground: Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    for name, digit in (("sql", "a"), ("code", "b"), ("math", "c")):
        await ground.load(name, revision(digit))
    later()
    engine.unload_gate.clear()
    loading = asyncio.create_task(ground.load("chat", revision("d")))
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="room is being made")
    for name in ("code", "math"):
        table.touch(name)
    engine.unload_gate.set()
    await loading
    assert set(table.served) == {"code", "math", "chat"}


async def test_there_is_room_below_the_limit_and_the_capacity(ground: Ground) -> None:
    assert ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    await ground.load("sql", revision("a"))
    assert not ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    ground.residency.drain("sql")
    await ground.load("code", revision("b"))
    assert not ground.residency.has_room(99), "what is leaving still takes its place"


async def test_room_is_made_before_the_engine_loads(
    ground: Ground, engine: FakeEngine, later: Callable[[], None]
) -> None:
    await ground.load("sql", revision("a"))
    await ground.load("code", revision("b"))
    later()
    engine.gate.clear()
    loading = asyncio.create_task(ground.load("math", revision("c")))
    await wait_until(lambda: len(engine.loads) == 3, timeout=5, description="it is loading")
    assert len(engine.holds) == 1
    engine.gate.set()
    await loading
