"""Updates and removals: the new beside the old, no request without an answer, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from catalog.adapter import AdapterState
from catalog.status import WorkerState
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from tests.waiting import wait_until
from tests.worker.served import state_of, until_forgotten, until_serves, until_state, wanted
from worker.outcomes import UnknownModel
from worker.reconciler import Reconciler


@pytest.fixture
async def running(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reconciler]:
    """The reconciler, looking after itself all the time, with no grace for what nobody uses."""
    monkeypatch.setattr("worker.reconciler._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("worker.residency.GRACE_SECONDS", 0.0)
    task = asyncio.create_task(reconciler.run(preload=0))
    yield reconciler
    assert not task.done(), "the background task broke"
    task.cancel()


async def test_an_update_is_loaded_beside_the_old_and_then_answers(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    engine.gate.clear()
    running.apply(wanted("sql", revision("b")))
    await wait_until(lambda: len(engine.loads) == 2, timeout=5, description="the new one is loading")
    assert (await running.resolve("sql")).revision == revision("a"), "the old one answers meanwhile"
    engine.gate.set()
    await until_serves(running, "sql", revision("b"))
    await wait_until(
        lambda: engine.held_revisions() == [("sql", revision("b"))], timeout=5, description="the old one went"
    )
    assert store.pinned() == [revision("b")]


async def test_an_update_of_what_was_never_asked_for_costs_nothing(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    running.apply(wanted("sql", revision("b")))
    assert (await running.resolve("sql")).revision == revision("b")
    assert len(engine.loads) == 1


async def test_the_old_revision_stays_while_a_request_uses_it(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    old = await running.resolve("sql")
    engine.in_use = {old.lora_id}
    running.apply(wanted("sql", revision("b")))
    await until_serves(running, "sql", revision("b"))
    assert engine.held_revisions() == [("sql", revision("a")), ("sql", revision("b"))]
    engine.in_use = set()
    await wait_until(lambda: old.lora_id not in engine.holds, timeout=5, description="the old one went")


async def test_a_rejected_update_leaves_the_old_one_serving_and_shows_why(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    store.outcomes["sql"].append(rejected())
    running.apply(wanted("sql", revision("b")))
    await wait_until(
        lambda: running.standing.picture()["sql"].reason is not None,
        timeout=5,
        description="the reason shows",
    )
    assert (await running.resolve("sql")).revision == revision("a")
    report = running.standing.picture()["sql"]
    assert (report.state, report.revision) == (WorkerState.LOADED, revision("a"))
    assert report.reason is not None
    assert report.reason.code == "weights_not_finite"
    assert len(store.sources) == 2, "what is rejected is not tried again"


async def test_a_failed_update_is_tried_again_until_it_works(
    running: Reconciler, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.entry._FIRST_PAUSE", timedelta(milliseconds=20))
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    store.outcomes["sql"] += [failed(), failed(), None]
    running.apply(wanted("sql", revision("b")))
    await until_serves(running, "sql", revision("b"))
    assert running.standing.picture()["sql"].reason is None
    assert len(store.sources) == 4


async def test_old_bytes_bring_the_old_revision_back_without_a_moment_outside_the_engine(
    running: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    running.apply(wanted("sql", revision("a")))
    old = await running.resolve("sql")
    engine.in_use = {old.lora_id}
    running.apply(wanted("sql", revision("b")))
    await until_serves(running, "sql", revision("b"))
    running.apply(wanted("sql", revision("a")))
    await until_serves(running, "sql", revision("a"))
    engine.in_use = set()
    await wait_until(lambda: len(engine.holds) == 1, timeout=5, description="the newer one went")
    assert old.lora_id in engine.holds
    assert old not in engine.unloads
    assert store.pinned() == [revision("a")]


async def test_going_back_while_the_old_one_drains_revives_its_id_though_an_update_between_was_refused(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    old = await running.resolve("sql")
    engine.in_use = {old.lora_id}
    engine.outcomes["sql"].append(rejected("engine_refused"))
    running.apply(wanted("sql", revision("b")))
    await wait_until(
        lambda: running.standing.picture()["sql"].reason is not None,
        timeout=5,
        description="the update is refused",
    )
    running.apply(wanted("sql", revision("c")))
    await until_serves(running, "sql", revision("c"))
    running.apply(wanted("sql", revision("a")))
    await until_serves(running, "sql", revision("a"))
    assert (await running.resolve("sql")).lora_id == old.lora_id


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


async def test_a_new_state_on_disk_alone_changes_nothing_that_is_served(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    running.apply(wanted("sql", revision("a"), state=AdapterState.INCOMPLETE, reason=TRUNCATED))
    assert (await running.resolve("sql")).revision == revision("a")
    assert len(engine.loads) == 1


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


async def test_room_is_made_for_the_next_adapter_and_the_evicted_one_comes_back_when_asked_for(
    running: Reconciler, engine: FakeEngine
) -> None:
    digits = "12345"
    running.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    for digit in digits:
        await running.resolve(f"a{digit}")
    assert len(engine.holds) == 4
    assert state_of(running, "a1") is WorkerState.LISTED, "it was loaded once, and is not now"
    assert (await running.resolve("a1")).revision == revision("1")
    assert len(engine.holds) == 4


async def test_many_adapters_asked_for_at_once_are_all_served_though_they_do_not_fit_together(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    digits = "0123456789"
    reconciler.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    handles = await asyncio.gather(*(reconciler.resolve(f"a{digit}") for digit in digits))
    assert [handle.revision for handle in handles] == [revision(digit) for digit in digits]


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


async def test_a_thousand_changes_of_the_catalog_alone_are_no_call_to_the_engine(
    running: Reconciler,
    engine: FakeEngine,
    table: FakeTable,
    store: FakeStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = "0123456789abcdef"
    for number in range(1000):
        name, digit = f"a{number % 100}", digits[number % 16]
        match number % 4:
            case 0 | 1:
                running.apply(wanted(name, revision(digit)))
            case 2:
                running.apply(wanted(name, revision(digit), state=AdapterState.INCOMPLETE, reason=TRUNCATED))
            case _:
                running.apply({name: None})
    running.replace({f"b{number}": an_adapter(f"b{number}") for number in range(1000)})
    looks: list[int] = []
    monkeypatch.setattr(running, "_load_ahead", lambda *_: looks.append(1))
    await wait_until(lambda: len(looks) > 2, timeout=5, description="the reconciler has looked at it all")
    assert len(running.listed()) == 1000
    assert (engine.loads, engine.unloads, store.sources, table.served) == ([], [], [], {})


async def test_updates_of_many_adapters_at_once_let_the_engine_breathe_between_two_of_them(
    running: Reconciler, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a{digit}" for digit in "123"]
    running.apply({name: an_adapter(name, revision=revision("1")) for name in names})
    for name in names:
        await running.resolve(name)
    monkeypatch.setattr("worker.turns._SHORTEST_PAUSE_SECONDS", 3600.0)
    running.apply(wanted("a4", revision("1")))
    await running.resolve("a4")
    running.apply({name: an_adapter(name, revision=revision("2")) for name in names})
    await wait_until(
        lambda: (
            running.standing.counts()[WorkerState.LOADED] == 4
            and all(running._names.known(name).loading for name in names)
        ),
        timeout=5,
        description="three updates wait for their turn",
    )
    assert [(await running.resolve(name)).revision for name in names] == [revision("1")] * 3
    running.apply(wanted("a5", revision("1")))
    assert (await running.resolve("a5")).revision == revision("1"), "what is asked for does not wait"


async def test_an_update_that_waits_for_its_turn_comes_at_once_when_its_name_has_to_make_room(
    running: Reconciler, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    monkeypatch.setattr("worker.turns._SHORTEST_PAUSE_SECONDS", 3600.0)
    digits = "1234"
    running.apply({f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits})
    await running.resolve("a1")
    running.apply(wanted("sql", revision("b")))
    await wait_until(
        lambda: running._names.known("sql").loading, timeout=5, description="the update waits for its turn"
    )
    for digit in "234":
        await running.resolve(f"a{digit}")
    assert running._residency.handle_of("sql") is None, "it made room"
    assert (await running.resolve("sql")).revision == revision("b")


async def test_an_update_published_the_moment_the_one_before_is_served_is_not_missed(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    reconciler.apply(wanted("sql", revision("b")))
    task = reconciler._bringing["sql"].task
    while not task.done():  # noqa: ASYNC110 - on every turn of the loop, before anybody else hears of its end
        await asyncio.sleep(0)
    reconciler.apply(wanted("sql", revision("c")))
    await until_serves(reconciler, "sql", revision("c"))


async def test_an_update_of_an_adapter_that_is_removed_before_its_turn_never_reaches_the_engine(
    running: Reconciler, engine: FakeEngine, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.apply(wanted("sql", revision("a")))
    handle = await running.resolve("sql")
    engine.in_use = {handle.lora_id}  # never idle
    store.gate.clear()
    running.apply(wanted("sql", revision("b")))
    await wait_until(lambda: len(store.sources) == 2, timeout=5, description="the update is copied")
    running.apply({"sql": None})
    store.gate.set()
    await wait_until(
        lambda: not running._names.known("sql").loading, timeout=5, description="the update is given up"
    )
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
