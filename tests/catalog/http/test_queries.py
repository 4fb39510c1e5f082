"""What both HTTP ports answer, from a fleet over a real Redis."""

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.errors import (
    CatalogUnavailable,
    DiscoveryError,
    NoWatcher,
    UnknownAdapter,
    UnknownRefresh,
)
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.catalog.http.views import AdapterView, Listed
from loradrop.catalog.status import RefreshStatus, WorkerAdapter, WorkerState
from loradrop.catalog.store import Connection, Publisher
from testkit.waiting import wait_until
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision

GOOD = an_adapter("good")
BAD = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED)


async def adapters_of(queries: Queries) -> list[AdapterView]:
    """Return the list as a client reads it."""
    body = b"".join([chunk async for chunk in await queries.adapters()])
    return Listed[AdapterView].model_validate_json(body).data


@pytest.fixture
def queries(connection: Connection) -> Queries:
    return Queries(connection)


async def test_a_refresh_converges_when_every_worker_has_observed_it(
    queries: Queries, redis_url: str
) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {"good": GOOD, "bad": BAD}
        refresh_id = await queries.start_refresh(RefreshBody())
        view = await queries.finished_refresh(refresh_id, timeout_seconds=10)
    assert view.status is RefreshStatus.CONVERGED
    assert view.discovered_adapters == ["good"]
    assert [rejected.id for rejected in view.rejected_adapters] == ["bad"]
    assert (view.workers.total, view.workers.converged, view.workers.pending) == (2, 2, [])
    assert view.message == (
        "Successfully refreshed LoRA discovery. Found 1 total adapters, 1 newly discovered."
    )


async def test_a_refresh_is_partial_where_a_worker_has_not_observed_it_in_time(
    queries: Queries, redis_url: str
) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        slow.paused = True
        watcher.disk = {"good": GOOD}
        refresh_id = await queries.start_refresh(RefreshBody())
        view = await queries.finished_refresh(refresh_id, timeout_seconds=0.5)
    assert view.status is RefreshStatus.PARTIAL
    assert view.workers.pending == [slow.id]


async def test_a_refresh_times_out_where_the_watcher_does_not_answer(
    queries: Queries, redis_url: str
) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.deaf = True
        refresh_id = await queries.start_refresh(RefreshBody())
        view = await queries.finished_refresh(refresh_id, timeout_seconds=0.1)
    assert view.status is RefreshStatus.TIMEOUT
    assert len(view.workers.pending) == 2


async def test_a_prefix_that_cannot_be_read_fails_the_refresh(queries: Queries, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}) as (watcher, _):
        watcher.unreadable = Reason("prefix_unreadable", "/srv/loras is not there; mount it.")
        refresh_id = await queries.start_refresh(RefreshBody())
        with pytest.raises(DiscoveryError, match="mount it"):
            await queries.finished_refresh(refresh_id, timeout_seconds=10)
        assert (await queries.refresh(refresh_id)).status is RefreshStatus.FAILED
        assert [view.id for view in await adapters_of(queries)] == ["good"]


async def test_a_dry_run_says_what_would_change_and_changes_nothing(queries: Queries, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {"good": GOOD}
        refresh_id = await queries.start_refresh(RefreshBody(dry_run=True))
        view = await queries.finished_refresh(refresh_id, timeout_seconds=10)
        assert (view.status, view.discovered_adapters) == (RefreshStatus.CONVERGED, ["good"])
        assert "nothing was changed" in view.message
        assert await adapters_of(queries) == []


async def test_without_a_watcher_no_refresh_is_asked_for(queries: Queries, redis_url: str) -> None:
    with pytest.raises(NoWatcher):
        await queries.start_refresh(RefreshBody())


async def test_a_refresh_lost_with_an_emptied_redis_has_to_be_asked_for_again(
    queries: Queries, redis_url: str, raw: "Redis[str]"
) -> None:
    async with fleet(redis_url, workers=0) as (watcher, _):
        watcher.deaf = True
        refresh_id = await queries.start_refresh(RefreshBody())
        await raw.flushall()
        with pytest.raises(CatalogUnavailable, match="Ask for a new one"):
            await queries.finished_refresh(refresh_id, timeout_seconds=10)
        with pytest.raises(UnknownRefresh):
            await queries.refresh(refresh_id)


async def test_adapters_come_by_name_with_their_state_on_every_worker(
    queries: Queries, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "bad": BAD}) as (_, [first, second]):
        first.adapters = {"good": WorkerAdapter(state=WorkerState.LOADED, revision=revision("a"), loads=1)}
        second.paused = True

        async def loaded() -> bool:
            return (await queries.adapter("good")).workers[first.id].state is WorkerState.LOADED

        await wait_until(loaded, timeout=10, description="the first worker says it has loaded the adapter")
        bad, good = await adapters_of(queries)
    assert (bad.id, bad.state, bad.workers) == ("bad", AdapterState.REJECTED, {})
    assert bad.reason is not None
    assert bad.reason.code == TRUNCATED.code
    assert {worker: on.state for worker, on in good.workers.items()} == {
        first.id: WorkerState.LOADED,
        second.id: WorkerState.LISTED,
    }


async def test_an_unknown_name_is_unknown_only_where_there_is_a_catalog(
    queries: Queries, publisher: Publisher, raw: "Redis[str]"
) -> None:
    with pytest.raises(UnknownAdapter, match="'nope'"):
        await queries.adapter("nope")
    await raw.flushall()
    for asked in (queries.adapter("nope"), queries.adapters(), queries.workers()):
        with pytest.raises(CatalogUnavailable, match="no catalog"):
            await asked


async def test_lag_counts_the_changes_a_worker_has_not_observed(queries: Queries, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        slow.paused = True
        watcher.disk = {"good": GOOD, "bad": BAD}
        await watcher.scan()

        async def first_is_in_step() -> bool:
            return [worker.lag for worker in await queries.workers()] == [0, 2]

        await wait_until(first_is_in_step, timeout=10, description="one in step, one two changes behind")


async def test_a_catalog_that_lost_records_is_not_listed_as_if_they_were_all(
    queries: Queries, connection: Connection
) -> None:
    publisher = Publisher(connection, owner="watcher")
    await publisher.lead()
    await publisher.publish([GOOD, BAD], catalog_size=2)
    assert len(await adapters_of(queries)) == 2
    await connection.commands.hdel(connection.keys.adapters, "good")
    with pytest.raises(CatalogUnavailable, match="records are missing"):
        await adapters_of(queries)
