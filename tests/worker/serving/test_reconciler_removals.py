"""Removals: unknown at once, drained, and nothing left behind; back again without being unloaded."""

import asyncio
from dataclasses import replace

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import UnknownModel
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable, rejected
from testkit.waiting import wait_until
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.worker.served import state_of, until_forgotten, until_serves, until_state, wanted


@pytest.mark.parametrize("state", [AdapterState.SETTLING, AdapterState.INCOMPLETE, AdapterState.UNKNOWN])
async def test_a_watcher_that_cannot_know_what_was_served_takes_nothing_away(
    running: Reconciler, state: AdapterState
) -> None:
    """As after Redis was emptied and a standby took over, while the files are being changed."""
    running.replace(wanted("sql", revision("a")))
    await running.resolve("sql")
    in_doubt = an_adapter("sql", revision=None, state=state, reason=TRUNCATED)
    running.replace({"sql": in_doubt, "never ready": replace(in_doubt, name="never ready")})
    assert [adapter.name for adapter in running.listed()] == ["sql"]
    assert (await running.resolve("sql")).revision == revision("a")
    running.apply(wanted("sql", revision("b")))
    await until_serves(running, "sql", revision("b"))
    running.apply({"sql": replace(in_doubt, state=AdapterState.REJECTED)})
    assert running.listed() == []


async def test_a_removed_adapter_is_unknown_at_once_and_drains(
    running: Reconciler, engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    running.replace(wanted("sql", revision("a")))
    handle = await running.resolve("sql")
    engine.in_use = {handle.lora_id}
    running.apply({"sql": None})
    assert table.served == {}
    with pytest.raises(UnknownModel):
        await running.resolve("sql")
    assert state_of(running, "sql") is WorkerState.DRAINING
    assert handle.lora_id in engine.holds

    engine.in_use = set()
    await until_forgotten(running, "sql")
    assert (engine.holds, store.pinned()) == ({}, [])


async def test_removing_what_was_never_asked_for_leaves_nothing_to_report(running: Reconciler) -> None:
    running.apply(wanted("sql", revision("a")))
    running.apply({"sql": None, "never_heard_of": None})
    await until_forgotten(running, "sql")
    assert running.listed() == []


async def test_an_adapter_dropped_again_while_it_drains_serves_without_being_unloaded(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    handle = await running.resolve("sql")
    engine.in_use = {handle.lora_id}
    running.apply({"sql": None})
    running.apply(wanted("sql", revision("a")))
    assert (await running.resolve("sql")).lora_id == handle.lora_id
    engine.in_use = set()
    await wait_until(lambda: len(store.pinned()) == 1, timeout=5, description="one pin is left")
    assert engine.unloads == []
    assert state_of(running, "sql") is WorkerState.LOADED


async def test_other_bytes_dropped_while_the_old_ones_drain_serve_beside_them(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    old = await running.resolve("sql")
    engine.in_use = {old.lora_id}
    running.apply({"sql": None})
    running.apply(wanted("sql", revision("b")))
    assert (await running.resolve("sql")).revision == revision("b")
    assert engine.held_revisions() == [("sql", revision("a")), ("sql", revision("b"))]


async def test_an_adapter_removed_while_it_loads_leaves_neither_slot_nor_pin(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.replace(wanted("sql", revision("a")))
    engine.gate.clear()
    request = asyncio.create_task(running.resolve("sql"))
    await until_state(running, "sql", WorkerState.LOADING)
    running.apply({"sql": None})
    engine.gate.set()
    with pytest.raises(UnknownModel):
        await request
    await until_forgotten(running, "sql")
    assert (engine.holds, store.pinned()) == ({}, [])


async def test_an_adapter_removed_while_its_load_fails_leaves_nothing_to_report(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.replace(wanted("sql", revision("a")))
    engine.gate.clear()
    engine.outcomes["sql"].append(rejected("engine_refused"))
    request = asyncio.create_task(running.resolve("sql"))
    await until_state(running, "sql", WorkerState.LOADING)
    running.apply({"sql": None})
    engine.gate.set()
    with pytest.raises(UnknownModel):
        await request
    await until_forgotten(running, "sql")


async def test_a_new_listing_removes_what_it_lacks_and_keeps_what_could_not_be_read(
    running: Reconciler,
) -> None:
    running.replace(
        wanted("sql", revision("a")) | wanted("code", revision("b")) | wanted("math", revision("c"))
    )
    for name in ("sql", "code", "math"):
        await running.resolve(name)
    running.replace(wanted("sql", revision("a")), unreadable=["code"])
    assert (await running.resolve("sql")).revision == revision("a")
    assert (await running.resolve("code")).revision == revision("b")
    with pytest.raises(UnknownModel):
        await running.resolve("math")


async def test_a_removal_never_takes_away_a_static_module_of_the_same_name(
    running: Reconciler, table: FakeTable
) -> None:
    table.taken = {"sql"}
    running.apply(wanted("sql", revision("a")))
    running.apply({"sql": None})
    assert table.taken == {"sql"}


async def test_an_engine_that_cannot_unload_stops_nothing_else(
    running: Reconciler, engine: FakeEngine
) -> None:
    engine.unload_error = RuntimeError("no")
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    running.apply({"sql": None})
    await until_forgotten(running, "sql")
    running.apply(wanted("code", revision("b")))
    assert (await running.resolve("code")).revision == revision("b")
