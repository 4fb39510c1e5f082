"""What Redis says of a worker: at most a heartbeat old, anew after every outage, nothing once it stops."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
import redis
from prometheus_client import REGISTRY

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.status import WorkerState
from loradrop.catalog.store import Connection, Reader, Reports
from loradrop.worker.engine.nan_monitor import NanAlarm
from loradrop.worker.fleet.catalog_follower import Consumer, Position
from loradrop.worker.fleet.reporter import Reporter
from loradrop.worker.serving.reconciler import Reconciler
from testkit.servers import ValkeyServer, valkey
from testkit.waiting import wait_until
from tests.catalog.values import a_worker, revision
from tests.worker.served import wanted

ME = "gpu-1:8000"
SILENT = NanAlarm(is_counted=False)


class _Ringing(NanAlarm):
    """An alarm that rings all the time."""

    def __init__(self) -> None:
        super().__init__(is_counted=False)

    def reason(self) -> Reason:
        return Reason("nan_in_logits", "43 requests met NaN.")


@asynccontextmanager
async def reporting(
    connection: Connection, reconciler: Reconciler, alarm: NanAlarm = SILENT
) -> AsyncIterator[tuple[Consumer, Reports]]:
    reports = Reports(connection)
    consumer = Consumer(Reader(connection), reconciler, moved=reconciler.standing.bell)
    reporter = Reporter(reports, a_worker(ME), standing=reconciler.standing, consumer=consumer, alarm=alarm)
    task = asyncio.create_task(reporter.run())
    try:
        yield consumer, reports
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
    async with reporting(connection, reconciler) as (consumer, reports):
        consumer.position = Position("epoch-7", 42)
        reconciler.standing.bell.set()

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
    connection: Connection, reconciler: Reconciler
) -> None:
    async with reporting(connection, reconciler, _Ringing()) as (_, reports):

        async def degraded() -> bool:
            status = (await reports.workers()).get(ME)
            return status is not None and status.degraded == _Ringing().reason()

        await wait_until(degraded, timeout=5, description="the alarm shows")
        assert REGISTRY.get_sample_value("loradrop_worker_degraded") == 1


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
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "loradrop.worker.fleet.reporter")
    monkeypatch.setattr("loradrop.worker.fleet.reporter.HEARTBEAT", timedelta(milliseconds=50))
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        async with Connection(server.url) as connection, reporting(connection, reconciler) as (_, reports):
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
    redis_url: str, reports: Reports, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loradrop.worker.fleet.reporter._ANEW_SECONDS", 0.05)
    monkeypatch.setattr("loradrop.worker.fleet.reporter.HEARTBEAT", timedelta(milliseconds=50))
    reconciler.replace(wanted("sql", revision("a")))
    await reconciler.resolve("sql")
    await until_reported(reports, "sql", WorkerState.LOADED)
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    await until_reported(reports, "sql", WorkerState.LOADED)


def lose_data(server: ValkeyServer) -> None:
    shutil.rmtree(server.directory / "appendonlydir")
