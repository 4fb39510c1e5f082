"""Updates: the new beside the old, no request without an answer, nothing left behind."""

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WorkerState
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from testkit.waiting import wait_until
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.worker.conftest import Run
from tests.worker.served import until_serves, wanted


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
        lambda: running.status.snapshot()["sql"].reason is not None,
        timeout=5,
        description="the reason shows",
    )
    assert (await running.resolve("sql")).revision == revision("a")
    report = running.status.snapshot()["sql"]
    assert (report.state, report.revision) == (WorkerState.LOADED, revision("a"))
    assert report.reason is not None
    assert report.reason.code == "weights_not_finite"
    assert len(store.sources) == 2, "what is rejected is not tried again"


@pytest.mark.parametrize(
    "timings", [Timings(visit_seconds=0.005, grace_seconds=0.0, first_retry_seconds=0.02)], ids=["soon"]
)
async def test_a_failed_update_is_tried_again_until_it_works(running: Reconciler, store: FakeStore) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    store.outcomes["sql"] += [failed(), failed(), None]
    running.apply(wanted("sql", revision("b")))
    await until_serves(running, "sql", revision("b"))
    assert running.status.snapshot()["sql"].reason is None
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
        lambda: running.status.snapshot()["sql"].reason is not None,
        timeout=5,
        description="the update is refused",
    )
    running.apply(wanted("sql", revision("c")))
    await until_serves(running, "sql", revision("c"))
    running.apply(wanted("sql", revision("a")))
    await until_serves(running, "sql", revision("a"))
    assert (await running.resolve("sql")).lora_id == old.lora_id


async def test_a_new_state_on_disk_alone_changes_nothing_that_is_served(
    running: Reconciler, engine: FakeEngine
) -> None:
    running.apply(wanted("sql", revision("a")))
    await running.resolve("sql")
    running.apply(wanted("sql", revision("a"), state=AdapterState.INCOMPLETE, reason=TRUNCATED))
    assert (await running.resolve("sql")).revision == revision("a")
    assert len(engine.loads) == 1


async def test_a_thousand_changes_of_the_catalog_alone_are_no_call_to_the_engine(
    reconciler: Reconciler, run: Run, engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    engine.in_use = {1}  # so nothing is loaded ahead, though each visit considers it
    run(None)
    digits = "0123456789abcdef"
    for number in range(1000):
        name, digit = f"a{number % 100}", digits[number % 16]
        match number % 4:
            case 0 | 1:
                reconciler.apply(wanted(name, revision(digit)))
            case 2:
                reconciler.apply(
                    wanted(name, revision(digit), state=AdapterState.INCOMPLETE, reason=TRUNCATED)
                )
            case _:
                reconciler.apply({name: None})
    reconciler.replace({f"b{number}": an_adapter(f"b{number}") for number in range(1000)})
    checks = engine.idle_checks
    await wait_until(
        lambda: engine.idle_checks > checks + 2, timeout=5, description="the reconciler has visited it all"
    )
    assert len(reconciler.listed()) == 1000
    assert (engine.loads, engine.unloads, store.sources, table.served) == ([], [], [], {})
