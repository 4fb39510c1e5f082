"""What Redis says of a worker: at most a heartbeat old, anew after every outage, nothing once it stops."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import redis
from prometheus_client import REGISTRY

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.status import WorkerState
from loradrop.catalog.store import Connection, Reports
from loradrop.worker.fleet.catalog_follower import Position
from loradrop.worker.fleet.reporter import Reporter, ReporterTimings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.servers import ValkeyServer, valkey
from testkit.waiting import wait_until
from tests.catalog.values import a_worker, revision
from tests.worker.served import wanted

ME = "gpu-1:8000"
CORRUPTED = Reason("nan_in_logits", "43 requests met NaN.")
OFTEN = ReporterTimings(heartbeat_seconds=0.05, gather_seconds=0.0)


class _Server:
    """What a report says beside the adapters."""

    def __init__(self) -> None:
        self.position = Position()
        self.degraded: Reason | None = None


@asynccontextmanager
async def reporting(
    connection: Connection,
    reconciler: Reconciler,
    timings: ReporterTimings = ReporterTimings(),  # noqa: B008
) -> AsyncIterator[tuple[_Server, Reports]]:
    reports, server = Reports(connection), _Server()
    reporter = Reporter(
        reports,
        a_worker(ME),
        adapters=reconciler.status,
        position=lambda: server.position,
        degraded=lambda: server.degraded,
        timings=timings,
    )
    task = asyncio.create_task(reporter.run())
    try:
        yield server, reports
        assert not task.done(), "the reporter broke"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def reports(connection: Connection, reconciler: Reconciler) -> AsyncIterator[Reports]:
    async with reporting(connection, reconciler) as (_, reports):
        yield reports


async def until_reported(reports: Reports, name: str, state: WorkerState | None) -> None:
    async def reported() -> bool:
        try:
            adapter = (await reports.tables([ME]))[ME].get(name)
        except CatalogUnavailable:
            return False
        return (adapter.state if adapter else None) is state

    await wait_until(reported, timeout=10, description=f"{name} is reported as {state}")


async def test_a_worker_shows_as_soon_as_it_runs(reports: Reports) -> None:
    async def shows() -> bool:
        return ME in await reports.workers()

    await wait_until(shows, timeout=5, description="the worker shows")


async def test_changes_are_reported_long_before_the_next_heartbeat(
    reports: Reports, reconciler: Reconciler
) -> None:
    reconciler.replace(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    await until_reported(reports, "sql", WorkerState.LOADED)
    reconciler.apply({"sql": None})
    await until_reported(reports, "sql", WorkerState.DRAINING)
    status = (await reports.workers())[ME]
    assert status.counts["draining"] == 1


async def test_the_position_is_reported_when_it_moves(connection: Connection, reconciler: Reconciler) -> None:
    async with reporting(connection, reconciler) as (server, reports):
        server.position = Position("epoch-7", 42)
        reconciler.status.wakeup.set()

        async def observed() -> bool:
            status = (await reports.workers()).get(ME)
            return status is not None and (status.epoch, status.observed_seq) == ("epoch-7", 42)

        await wait_until(observed, timeout=5, description="seq 42 is reported")
        assert REGISTRY.get_sample_value("loradrop_observed_seq") == 42
        assert REGISTRY.get_sample_value("loradrop_catalog_stale") == 0


async def test_states_are_shown_as_metrics_and_none_is_left_standing(
    reports: Reports, reconciler: Reconciler
) -> None:
    def shown(state: str) -> float | None:
        return REGISTRY.get_sample_value("loradrop_adapters", {"state": state})

    reconciler.replace(wanted("sql", revision("a")))
    await wait_until(lambda: shown("listed") == 1, timeout=5, description="one is listed")
    await reconciler.resolve("sql")
    await wait_until(
        lambda: (shown("listed"), shown("loading"), shown("loaded")) == (0, 0, 1),
        timeout=5,
        description="one is loaded, none listed",
    )


async def test_what_is_in_the_engine_and_pinned_is_shown_as_metrics(
    reports: Reports, reconciler: Reconciler
) -> None:
    reconciler.replace(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    await wait_until(
        lambda: (
            (
                REGISTRY.get_sample_value("loradrop_resident_revisions"),
                REGISTRY.get_sample_value("loradrop_pinned_revisions"),
            )
            == (1, 1)
        ),
        timeout=5,
        description="one revision shows",
    )


async def test_answers_out_of_nan_are_reported_with_their_reason(
    connection: Connection, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    def errors() -> list[str]:
        return [record.message for record in caplog.records if record.levelname == "ERROR"]

    async with reporting(connection, reconciler, OFTEN) as (server, reports):

        async def is_degraded() -> bool:
            status = (await reports.workers()).get(ME)
            return status is not None and status.degraded == CORRUPTED

        assert errors() == []
        server.degraded = CORRUPTED
        await wait_until(is_degraded, timeout=5, description="the reason is reported")
        assert REGISTRY.get_sample_value("loradrop_worker_degraded") == 1
        beat = (await reports.workers())[ME].last_heartbeat

        async def has_beaten() -> bool:
            return (await reports.workers())[ME].last_heartbeat > beat

        await wait_until(has_beaten, timeout=5, description="it is reported again")
    assert errors() == [f"worker is degraded reason={CORRUPTED}"], "it is logged once"


async def test_a_worker_that_is_degraded_from_the_start_is_logged_as_that(
    connection: Connection, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    async with reporting(connection, reconciler) as (server, _):
        server.degraded = CORRUPTED
        await wait_until(
            lambda: f"worker is degraded reason={CORRUPTED}" in caplog.text,
            timeout=5,
            description="it is logged",
        )


async def test_a_worker_that_stops_while_redis_is_away_ends_like_any_other(
    reconciler: Reconciler, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        async with Connection(server.url) as connection, reporting(connection, reconciler) as (_, reports):
            await until_reported(reports, "sql", None)
            server.kill()


async def test_a_worker_that_stops_says_so(connection: Connection, reconciler: Reconciler) -> None:
    async with reporting(connection, reconciler) as (_, reports):
        reconciler.replace(wanted("sql", revision("a")))
        await reconciler.resolve("sql")
        await until_reported(reports, "sql", WorkerState.LOADED)
    assert await reports.workers() == {}
    assert (await reports.tables([ME]))[ME] == {}


async def test_after_an_outage_everything_is_reported_anew(
    reconciler: Reconciler,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "loradrop.worker.fleet.reporter")
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        async with (
            Connection(server.url) as connection,
            reporting(connection, reconciler, OFTEN) as (_, reports),
        ):
            reconciler.replace(wanted("sql", revision("a")) | wanted("code", revision("b")))
            await reconciler.resolve("sql")
            await until_reported(reports, "sql", WorkerState.LOADED)
            server.kill()
            await wait_until(
                lambda: "report not delivered" in caplog.text, timeout=10, description="the outage is noticed"
            )
            await reconciler.resolve("code")
            lose_data(server)
            await asyncio.to_thread(server.start)
            await until_reported(reports, "sql", WorkerState.LOADED)
            await until_reported(reports, "code", WorkerState.LOADED)


async def test_a_redis_that_lost_its_data_unnoticed_is_told_everything_again(
    redis_url: str, connection: Connection, reconciler: Reconciler
) -> None:
    timings = ReporterTimings(heartbeat_seconds=0.05, everything_seconds=0.05)
    async with reporting(connection, reconciler, timings) as (_, reports):
        reconciler.replace(wanted("sql", revision("a")))
        await reconciler.resolve("sql")
        await until_reported(reports, "sql", WorkerState.LOADED)
        with redis.Redis.from_url(redis_url) as raw:
            raw.flushall()
        await until_reported(reports, "sql", WorkerState.LOADED)


def lose_data(server: ValkeyServer) -> None:
    shutil.rmtree(server.directory / "appendonlydir")
