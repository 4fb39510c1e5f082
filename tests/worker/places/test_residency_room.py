"""Room in the engine, which has two places: made by what is unused, and waited for where nothing is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import Failed
from loradrop.worker.places.load_scheduler import NotDesired
from loradrop.worker.places.timings import Timings
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.ground import Clock, Ground

Full = tuple[Handle, Handle]

A, B, C, D = (revision(digit) for digit in "abcd")
TIMINGS = Timings()


@pytest.fixture
async def full(ground: Ground, engine: FakeEngine) -> tuple[Handle, Handle]:
    """Both places are taken, by A of sql and B of code, and requests use both."""
    handles = await ground.load("sql", A), await ground.load("code", B)
    engine.in_use = {handle.lora_id for handle in handles}
    return handles


@asynccontextmanager
async def waiting(ground: Ground, name: str, wanted: Revision) -> AsyncIterator["asyncio.Task[Handle]"]:
    """A load that a request waits for, and that has asked for a place."""
    load = asyncio.create_task(ground.load(name, wanted))
    await asks_for_places()
    try:
        yield load
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


async def asks_for_places() -> None:
    """Let all loads that wait ask for a place again."""
    for _ in range(3):
        await asyncio.sleep(0.003)


async def test_room_is_made_by_the_name_unused_for_longest(
    ground: Ground,
    engine: FakeEngine,
    table: FakeTable,
    store: FakeStore,
    clock: Clock,
    later: Callable[[], None],
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    clock.advance(1.0)
    table.touch("sql")
    later()
    await ground.load("math", C)
    assert engine.held_revisions() == [("math", C), ("sql", A)]
    assert set(table.served) == {"math", "sql"}
    assert store.pinned() == [A, C]
    assert "code" in ground.changed[-4:]


@pytest.mark.parametrize("how", ["it is started", "it has found it"])
async def test_room_is_never_made_by_what_a_request_uses(
    ground: Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None], how: str
) -> None:
    used = await ground.load("sql", A)
    await ground.load("code", B)
    later()
    (engine.in_use if how == "it is started" else table.found).add(used.lora_id)
    await ground.load("math", C)
    assert set(table.served) == {"math", "sql"}


async def test_a_load_waits_for_what_was_just_asked_for(
    ground: Ground, table: FakeTable, engine: FakeEngine, later: Callable[[], None]
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    later()
    table.touch("sql")
    table.touch("code")
    async with waiting(ground, "math", C) as load:
        assert len(engine.loads) == 2
        later()
        await load
    assert len(engine.holds) == 2


async def test_a_load_waits_for_what_was_just_loaded_for_a_request_that_is_still_starting(
    ground: Ground, table: FakeTable, later: Callable[[], None]
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    async with waiting(ground, "math", C) as load:
        assert set(table.served) == {"sql", "code"}
        later()
        await load
    assert "math" in table.served


async def test_where_all_are_in_use_one_is_withdrawn_and_unloaded_once_its_requests_have_ended(
    ground: Ground,
    engine: FakeEngine,
    table: FakeTable,
    full: Full,
    later: Callable[[], None],
) -> None:
    sql, _ = full
    later()
    table.touch("code")
    async with waiting(ground, "math", C) as load:
        assert set(table.served) == {"code"}
        assert engine.unloads == []
        engine.in_use.discard(sql.lora_id)
        later()
        await load
    assert engine.held_revisions() == [("code", B), ("math", C)]


async def test_where_what_was_withdrawn_streams_on_another_is_withdrawn_too(
    ground: Ground, engine: FakeEngine, table: FakeTable, full: Full, clock: Clock
) -> None:
    _, code = full
    clock.advance(TIMINGS.withdraw_seconds + 5.0)
    async with waiting(ground, "math", C) as load:
        assert len(table.served) == 1
        clock.advance(TIMINGS.withdraw_seconds)
        await asks_for_places()
        assert table.served == {}
        engine.in_use.discard(code.lora_id)
        clock.advance(5.0)
        await load
    assert engine.held_revisions() == [("math", C), ("sql", A)]


async def test_what_was_withdrawn_and_is_asked_for_again_waits_behind_the_load_it_was_withdrawn_for(
    ground: Ground,
    engine: FakeEngine,
    table: FakeTable,
    full: Full,
    later: Callable[[], None],
) -> None:
    sql, code = full
    later()
    table.touch("code")
    async with waiting(ground, "math", C) as math, waiting(ground, "sql", A) as again:
        assert "sql" not in table.served
        engine.in_use.discard(sql.lora_id)
        later()
        await math
        engine.in_use.discard(code.lora_id)
        later()
        await again
    assert engine.held_revisions() == [("math", C), ("sql", A)]


async def test_a_request_that_waits_too_long_for_a_place_is_told_so(
    ground: Ground, full: Full, store: FakeStore, clock: Clock
) -> None:
    async with waiting(ground, "math", C) as load:
        clock.advance(TIMINGS.place_wait_seconds)
        with pytest.raises(Failed, match="no_place"):
            await load
    assert store.pinned() == [A, B]


async def test_loads_that_requests_wait_for_get_places_in_the_order_in_which_they_came(
    ground: Ground, engine: FakeEngine, full: Full, later: Callable[[], None]
) -> None:
    async with waiting(ground, "math", C) as first, waiting(ground, "chat", D) as second:
        engine.in_use = set()
        later()
        await first
        await second
    assert [handle.name for handle in engine.loads] == ["sql", "code", "math", "chat"]


async def test_an_update_leaves_all_in_their_places_and_takes_that_of_what_it_replaces_after_a_while(
    ground: Ground, engine: FakeEngine, table: FakeTable, full: Full, clock: Clock
) -> None:
    sql, _ = full
    clock.advance(10.0)
    update = asyncio.create_task(ground.update("sql", C))
    await asks_for_places()
    assert set(table.served) == {"sql", "code"}, "requests are answered from the old revision"
    clock.advance(TIMINGS.update_patience_seconds)
    await asks_for_places()
    assert set(table.served) == {"code"}
    engine.in_use.discard(sql.lora_id)
    clock.advance(10.0)
    await update
    assert engine.held_revisions() == [("code", B), ("sql", C)]


async def test_a_load_ahead_takes_no_place_from_what_is_loaded(
    ground: Ground, engine: FakeEngine, store: FakeStore, later: Callable[[], None]
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    later()
    with pytest.raises(NotDesired):
        await ground.update("math", C)
    assert (len(engine.loads), store.pinned()) == (2, [A, B])


async def test_a_name_that_goes_while_room_is_made_is_no_obstacle(
    ground: Ground, engine: FakeEngine, table: FakeTable, later: Callable[[], None]
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    later()
    engine.unload_gate.clear()
    loading = asyncio.create_task(ground.load("chat", D))
    await wait_until(lambda: bool(engine.unloads), timeout=5, description="room is being made")
    ground.residency.drain("code")
    engine.unload_gate.set()
    await loading
    assert set(table.served) == {"chat"}


async def test_names_with_the_same_content_take_one_place_and_are_loaded_once(
    ground: Ground, engine: FakeEngine, table: FakeTable, store: FakeStore, later: Callable[[], None]
) -> None:
    sql = await ground.load("sql", A)
    copy = await ground.load("copy-of-sql", A)
    await ground.load("code", B)
    assert sql.lora_id == copy.lora_id
    assert sql.inner_name != copy.inner_name
    assert len(engine.loads) == 2
    assert ground.residency.totals() == (2, 3)

    ground.residency.drain("sql")
    later()
    await ground.residency.unload_unused()
    assert set(table.served) == {"copy-of-sql", "code"}
    assert (engine.unloads, store.pinned()) == ([], [A, B])


async def test_all_names_of_a_revision_go_together_to_make_room(
    ground: Ground,
    engine: FakeEngine,
    table: FakeTable,
    store: FakeStore,
    clock: Clock,
    later: Callable[[], None],
) -> None:
    for name, wanted in (("sql", A), ("copy-of-sql", A), ("code", B)):
        await ground.load(name, wanted)
    clock.advance(1.0)
    table.touch("code")
    later()
    await ground.load("math", C)
    assert set(table.served) == {"code", "math"}
    assert (store.pinned(), len(engine.unloads)) == ([B, C], 1)


async def test_an_id_that_failed_to_load_is_not_used_for_another_name_of_the_same_content(
    ground: Ground, engine: FakeEngine
) -> None:
    engine.outcomes["sql"].append(Failed("engine_failed", "Not this time."))
    with pytest.raises(Failed):
        await ground.load("sql", A)
    assert (await ground.load("copy-of-sql", A)).lora_id != engine.loads[0].lora_id


async def test_a_copy_that_was_deleted_while_it_was_loaded_is_not_the_adapters_fault(
    ground: Ground, engine: FakeEngine, store: FakeStore
) -> None:
    engine.gate.clear()
    loading = asyncio.create_task(ground.load("sql", A))
    await wait_until(lambda: bool(engine.loads), timeout=5, description="it is loading")
    store.delete()
    engine.outcomes["sql"].append(Failed("engine_refused", "No adapter found."))
    engine.gate.set()
    with pytest.raises(Failed, match="copy_gone"):
        await loading


async def test_what_has_lost_its_files_is_not_handed_out_until_it_is_copied_again(
    ground: Ground, engine: FakeEngine, store: FakeStore
) -> None:
    handle = await ground.load("sql", A)
    store.delete()
    assert ground.residency.handle_of("sql") is None
    assert not ground.residency.is_served("sql", A)
    assert ground.residency.revision_of("sql") == A, "the engine has it: what has begun goes on"
    assert await ground.load("sql", A) == handle
    assert ground.residency.handle_of("sql") == handle
    assert (len(engine.loads), store.pinned()) == (1, [A])


async def test_there_is_room_below_the_limit_and_the_capacity(ground: Ground) -> None:
    assert ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    await ground.load("sql", A)
    assert not ground.residency.has_room(1)
    assert ground.residency.has_room(None)
    ground.residency.drain("sql")
    await ground.load("code", B)
    assert not ground.residency.has_room(99), "what is leaving still takes its place"


async def test_room_is_made_before_the_engine_loads(
    ground: Ground, engine: FakeEngine, later: Callable[[], None]
) -> None:
    await ground.load("sql", A)
    await ground.load("code", B)
    later()
    engine.gate.clear()
    loading = asyncio.create_task(ground.load("math", C))
    await wait_until(lambda: len(engine.loads) == 3, timeout=5, description="it is loading")
    assert len(engine.holds) == 1
    engine.gate.set()
    await loading


async def test_what_is_loaded_and_serves_nothing_yet_keeps_its_place(
    ground: Ground, engine: FakeEngine, later: Callable[[], None]
) -> None:
    """A manual load, whose client learns of it in a task of its own."""
    arrived = await ground.loaded("sql", A)
    await ground.load("code", B)
    later()
    await ground.load("math", C)
    assert engine.held_revisions() == [("math", C), ("sql", A)]
    ground.residency.serve(arrived)
    assert ground.residency.totals() == (2, 2)
