"""What a request for an adapter gets: its revision, loaded once, or why not and when to ask again."""

import asyncio
import contextlib

import pytest
from prometheus_client import REGISTRY

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.status import WorkerState
from loradrop.worker.outcomes import NotServedYet, Rejected, UnknownModel
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable, failed, rejected
from testkit.waiting import wait_until
from tests.catalog.values import revision
from tests.worker.served import never_ready, state_of, until_state, wanted

retrying_at_once = pytest.mark.parametrize("timings", [Timings(first_retry_seconds=0.0)], ids=["at once"])
OUTSIDE = Reason("link_escapes", "It is a link that leads out of the prefix.")


async def test_the_first_request_loads_and_the_next_finds_it_loaded(
    reconciler: Reconciler, engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    assert engine.loads == [], "the catalog alone costs the engine nothing"
    handle = await reconciler.resolve("sql")
    assert handle.revision == revision("a")
    assert table.served == {"sql": handle}
    assert await reconciler.resolve("sql") == handle
    assert len(engine.loads) == 1
    assert store.pinned() == [revision("a")]


async def test_ten_requests_at_once_are_one_copy_and_one_load(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.gate.clear()
    requests = [asyncio.create_task(reconciler.resolve("sql")) for _ in range(10)]
    await until_state(reconciler, "sql", WorkerState.LOADING)
    store.gate.set()
    handles = await asyncio.gather(*requests)
    assert {handle.revision for handle in handles} == {revision("a")}
    assert (len(store.sources), len(engine.loads)) == (1, 1)


async def test_a_request_that_gives_up_does_not_end_the_load_others_wait_for(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.gate.clear()
    impatient = asyncio.create_task(reconciler.resolve("sql"))
    patient = asyncio.create_task(reconciler.resolve("sql"))
    await until_state(reconciler, "sql", WorkerState.LOADING)
    impatient.cancel()
    engine.gate.set()
    assert (await patient).revision == revision("a")
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert len(engine.loads) == 1


async def test_the_source_is_under_our_own_prefix_whatever_the_watchers_host_calls_it(
    reconciler: Reconciler, store: FakeStore, tmp_path: object
) -> None:
    reconciler.apply(wanted("sql", revision("a"), path="v2/sql", size_bytes=77))
    await reconciler.resolve("sql")
    (source,) = store.sources
    assert str(source.prefix) == f"{tmp_path}/loras"
    assert (source.path, source.revision, source.size_bytes) == ("v2/sql", revision("a"), 77)


async def test_without_a_prefix_of_our_own_the_catalogs_is_read(
    engine: FakeEngine, table: FakeTable, store: FakeStore
) -> None:
    reconciler = Reconciler(engine, table, store.prepare, prefix=None, capacity=2)
    reconciler.apply(wanted("sql", revision("a"), prefix="/nfs/loras"))
    await reconciler.resolve("sql")
    assert str(store.sources[0].prefix) == "/nfs/loras"


async def test_a_name_is_unknown_only_once_the_catalog_is_known(reconciler: Reconciler) -> None:
    with pytest.raises(NotServedYet) as caught:
        await reconciler.resolve("sql")
    assert (caught.value.reason.code, caught.value.status) == ("catalog_unavailable", 503)
    assert caught.value.headers == {"Retry-After": "1"}
    reconciler.replace({})
    with pytest.raises(UnknownModel):
        await reconciler.resolve("sql")


@pytest.mark.parametrize("state", [AdapterState.SETTLING, AdapterState.INCOMPLETE, AdapterState.UNKNOWN])
async def test_an_adapter_that_has_never_been_ready_is_worth_asking_for_again(
    reconciler: Reconciler, state: AdapterState
) -> None:
    reconciler.apply(never_ready("sql", state))
    with pytest.raises(NotServedYet, match="is not there yet"):
        await reconciler.resolve("sql")


async def test_an_adapter_that_settles_without_a_reason_still_gets_a_sentence(reconciler: Reconciler) -> None:
    reconciler.apply(never_ready("sql", AdapterState.SETTLING, None))
    with pytest.raises(NotServedYet) as caught:
        await reconciler.resolve("sql")
    assert caught.value.reason.code == "settling"


async def test_an_adapter_the_watcher_rejected_is_refused_with_its_reason(reconciler: Reconciler) -> None:
    reconciler.apply(never_ready("sql", AdapterState.REJECTED, OUTSIDE))
    with pytest.raises(Rejected) as caught:
        await reconciler.resolve("sql")
    assert caught.value.reason == OUTSIDE


async def test_a_rejected_revision_is_not_tried_again(reconciler: Reconciler, store: FakeStore) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(rejected())
    for _ in range(3):
        with pytest.raises(Rejected, match="weights_not_finite"):
            await reconciler.resolve("sql")
    assert len(store.sources) == 1
    report = reconciler.status.snapshot()["sql"]
    assert (report.state, report.revision) == (WorkerState.REJECTED, revision("a"))
    assert report.reason is not None
    assert report.reason.code == "weights_not_finite"


async def test_other_bytes_are_another_try(reconciler: Reconciler, store: FakeStore) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(rejected())
    with pytest.raises(Rejected):
        await reconciler.resolve("sql")
    reconciler.apply(wanted("sql", revision("b")))
    assert (await reconciler.resolve("sql")).revision == revision("b")
    assert reconciler.status.snapshot()["sql"].reason is None


async def test_a_failure_says_when_to_ask_again_and_is_not_tried_before(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(failed())
    for _ in range(2):
        with pytest.raises(NotServedYet) as caught:
            await reconciler.resolve("sql")
        assert caught.value.status == 409
        assert caught.value.reason.code == "disk_full"
        assert caught.value.headers == {"Retry-After": "1"}
    assert len(store.sources) == 1
    assert state_of(reconciler, "sql") is WorkerState.FAILED


@retrying_at_once
async def test_after_the_pause_a_request_tries_again(reconciler: Reconciler, store: FakeStore) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"] += [failed(), None]
    assert (await reconciler.resolve("sql")).revision == revision("a")
    assert reconciler.status.snapshot()["sql"].reason is None


@pytest.mark.parametrize(
    ("timings", "told"),
    [(Timings(first_retry_seconds=7.2), "7"), (Timings(first_retry_seconds=0.4), "1")],
    ids=["seven seconds", "a moment"],
)
async def test_a_client_is_told_the_pause_before_the_next_try(
    reconciler: Reconciler, store: FakeStore, told: str
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(failed())
    with pytest.raises(NotServedYet) as caught:
        await reconciler.resolve("sql")
    assert caught.value.headers == {"Retry-After": told}


async def test_what_breaks_in_our_own_code_is_a_failure_of_that_adapter_alone(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")) | wanted("code", revision("b")))
    store.outcomes["sql"].append(ZeroDivisionError("our own fault"))
    with pytest.raises(NotServedYet) as caught:
        await reconciler.resolve("sql")
    assert caught.value.reason.code == "internal_error"
    assert (await reconciler.resolve("code")).revision == revision("b")


@retrying_at_once
async def test_an_engine_that_fails_gets_another_id_next_time(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.outcomes["sql"] += [failed("engine_failed"), None]
    await reconciler.resolve("sql")
    assert len({handle.lora_id for handle in engine.loads}) == 2
    assert store.pinned() == [revision("a")]


async def test_a_revision_the_engine_refused_gets_another_id_even_after_it_was_gone(
    reconciler: Reconciler, engine: FakeEngine
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.outcomes["sql"] += [rejected("engine_refused"), None]
    with pytest.raises(Rejected):
        await reconciler.resolve("sql")
    reconciler.apply({"sql": None})
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    assert len({handle.lora_id for handle in engine.loads}) == 2


async def test_a_name_the_server_has_already_is_refused_and_not_offered(
    reconciler: Reconciler, engine: FakeEngine, table: FakeTable
) -> None:
    table.taken = {"sql"}
    reconciler.apply(wanted("sql", revision("a")) | wanted("code", revision("b")))
    with pytest.raises(Rejected) as caught:
        await reconciler.resolve("sql")
    assert caught.value.reason.code == "name_taken"
    assert [adapter.name for adapter in reconciler.listed()] == ["code"]
    assert engine.loads == []
    report = reconciler.status.snapshot()["sql"]
    assert (report.state, report.reason) == (WorkerState.REJECTED, caught.value.reason)


async def test_what_was_rejected_here_for_good_is_not_offered_until_its_bytes_change(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")) | wanted("code", revision("b")))
    store.outcomes["sql"].append(rejected())
    store.outcomes["code"].append(failed())
    for name in ("sql", "code"):
        with pytest.raises((Rejected, NotServedYet)):
            await reconciler.resolve(name)
    assert [adapter.name for adapter in reconciler.listed()] == ["code"]
    reconciler.apply(wanted("sql", revision("c")))
    assert [adapter.name for adapter in reconciler.listed()] == ["code", "sql"]


async def test_an_update_that_was_rejected_leaves_the_name_offered(
    reconciler: Reconciler, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    store.outcomes["sql"].append(rejected())
    reconciler.apply(wanted("sql", revision("b")))
    await wait_until(
        lambda: reconciler.status.snapshot()["sql"].reason is not None,
        timeout=5,
        description="it is rejected",
    )
    assert [adapter.name for adapter in reconciler.listed()] == ["sql"]


async def test_a_name_the_server_gives_up_is_served_at_once(reconciler: Reconciler, table: FakeTable) -> None:
    table.taken = {"sql"}
    reconciler.apply(wanted("sql", revision("a")))
    with pytest.raises(Rejected):
        await reconciler.resolve("sql")
    table.taken = set()
    assert (await reconciler.resolve("sql")).revision == revision("a")
    assert [adapter.name for adapter in reconciler.listed()] == ["sql"]


async def test_a_revision_that_is_superseded_while_it_loads_never_answers(
    reconciler: Reconciler, engine: FakeEngine, table: FakeTable
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.gate.clear()
    request = asyncio.create_task(reconciler.resolve("sql"))
    await until_state(reconciler, "sql", WorkerState.LOADING)
    reconciler.apply(wanted("sql", revision("b")))
    engine.gate.set()
    assert (await request).revision == revision("b")
    assert table.served["sql"].revision == revision("b")


async def test_an_adapter_that_is_removed_while_it_loads_is_unknown(
    reconciler: Reconciler, engine: FakeEngine, table: FakeTable
) -> None:
    reconciler.replace(wanted("sql", revision("a")))
    engine.gate.clear()
    request = asyncio.create_task(reconciler.resolve("sql"))
    await until_state(reconciler, "sql", WorkerState.LOADING)
    reconciler.apply({"sql": None})
    engine.gate.set()
    with pytest.raises(UnknownModel):
        await request
    assert table.served == {}


async def test_a_load_under_way_ends_with_the_reconciler(
    reconciler: Reconciler, engine: FakeEngine, store: FakeStore
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    engine.gate.clear()
    request = asyncio.create_task(reconciler.resolve("sql"))
    await until_state(reconciler, "sql", WorkerState.LOADING)
    await reconciler.aclose()
    assert store.pinned() == [], "it has ended"
    with pytest.raises(asyncio.CancelledError):
        await request


@pytest.mark.parametrize("timings", [Timings(catalog_wait_seconds=3600.0)], ids=["patient"])
@pytest.mark.parametrize("outcome", [failed(), rejected()])
async def test_what_the_catalog_will_not_change_is_answered_at_once(
    reconciler: Reconciler, store: FakeStore, outcome: Exception
) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(outcome)
    with pytest.raises((NotServedYet, Rejected)):
        await reconciler.resolve("sql")


async def test_once_the_catalog_is_known_it_stays_known(reconciler: Reconciler) -> None:
    reconciler.replace({})
    reconciler.apply(wanted("sql", revision("a")))
    with pytest.raises(UnknownModel):
        await reconciler.resolve("code")


async def test_a_change_of_the_catalog_alone_makes_it_not_known(reconciler: Reconciler) -> None:
    reconciler.apply(wanted("sql", revision("a")))
    with pytest.raises(NotServedYet):
        await reconciler.resolve("code")


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (None, "loaded"),
        (failed(), "failed"),
        (ZeroDivisionError("our own fault"), "failed"),
        (rejected(), "rejected"),
    ],
)
async def test_every_try_is_counted_as_what_it_was(
    reconciler: Reconciler, store: FakeStore, outcome: Exception | None, counted: str
) -> None:
    def counts() -> dict[str, float]:
        return {
            each: REGISTRY.get_sample_value("loradrop_loads_total", {"outcome": each}) or 0.0
            for each in ("loaded", "failed", "rejected")
        }

    before = counts()
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"].append(outcome)
    with contextlib.suppress(NotServedYet, Rejected):
        await reconciler.resolve("sql")
    assert {each for each, count in counts().items() if count != before[each]} == {counted}
    assert counts()[counted] == before[counted] + 1


async def test_the_same_failure_is_a_warning_once(
    reconciler: Reconciler, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "loradrop.worker.serving.loading")
    reconciler.apply(wanted("sql", revision("a")))
    store.outcomes["sql"] += [failed(), failed(), failed("out_of_memory")]
    for digit in "abc":
        reconciler.apply(wanted("sql", revision(digit)))
        with pytest.raises(NotServedYet):
            await reconciler.resolve("sql")
    levels = [record.levelname for record in caplog.records if "adapter failed" in record.message]
    assert levels == ["WARNING", "DEBUG", "WARNING"]
