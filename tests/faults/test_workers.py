"""Faults of workers, and of what they are told to load."""

import signal
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from loradrop.api.settings import Settings
from loradrop.catalog.adapter import Revision
from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.catalog.store import Connection, Reports
from loradrop.worker.places.timings import Timings
from testkit.fakes import failed, rejected
from testkit.servers import ValkeyServer
from testkit.waiting import wait_until
from tests.api.conftest import api_client
from tests.faults.followers import follower_process, following
from tests.faults.table import Row
from tests.faults.watchers import drop, since, watcher_process
from tests.watcher.running import PATIENCE_SECONDS

REFRESHES = 200
FLEET_SIZE = 100


async def until_loaded(reports: Reports, worker_id: str, wanted: Mapping[str, Revision]) -> float:
    """Wait until a worker says that exactly `wanted` is loaded; return the seconds it took."""

    async def is_so() -> bool:
        told = (await reports.tables([worker_id]))[worker_id]
        return {n: a.revision for n, a in told.items() if a.state is WorkerState.LOADED} == wanted

    return await wait_until(is_so, timeout=PATIENCE_SECONDS, description=f"{len(wanted)} are loaded")


async def test_the_stream_is_trimmed_past_a_paused_worker(
    connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    log, reports = tmp_path / "log", Reports(connection)
    async with watcher_process(connection, prefix) as (_, history):
        wanted = drop(history, prefix, "keep", "change", "remove")
        await history.until_revisions(wanted)
        await history.until_complete()
        with follower_process(connection.url, tmp_path / "store", "me", log=log) as worker:
            await until_loaded(reports, "me", wanted)
            worker.send_signal(signal.SIGSTOP)
            (prefix / "remove").rename(tmp_path / "removed")
            for seed in (30, 40, 50):
                (prefix / "change").rename(tmp_path / f"before{seed}")
                wanted |= drop(history, prefix, "change", f"new{seed}", seed=seed)
                await history.until_revision("change", wanted["change"])
            del wanted["remove"]
            await history.until_revisions(wanted)
            await connection.commands.xtrim(connection.keys.events, maxlen=2, approximate=False)
            woken = time.monotonic()
            worker.send_signal(signal.SIGCONT)
            await until_loaded(reports, "me", wanted)
            row.converge_seconds = since(woken)
            told = (await reports.tables(["me"]))["me"]
            assert told["change"].loads == 2, "what came between was skipped"
            assert log.read_text().count("catalog listed") == 2
            await history.check(row, expected=wanted, removed=["remove"])


async def test_worker_killed_in_the_middle_of_a_load(
    connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    log, store, reports = tmp_path / "log", tmp_path / "store", Reports(connection)

    async def told() -> dict[str, WorkerAdapter]:
        return (await reports.tables(["me"]))["me"]

    async def is_loading() -> bool:
        return any(adapter.state is WorkerState.LOADING for adapter in (await told()).values())

    async with watcher_process(connection, prefix) as (_, history):
        wanted = drop(history, prefix, "sql", "code", "math")
        await history.until_revisions(wanted)
        with follower_process(connection.url, store, "me", log=log, held=True):
            await wait_until(is_loading, timeout=PATIENCE_SECONDS, description="a load is under way")
        killed = time.monotonic()
        with follower_process(connection.url, store, "me", log=log):
            await until_loaded(reports, "me", wanted)
            row.converge_seconds = since(killed)
            assert {name: adapter.loads for name, adapter in (await told()).items()} == dict.fromkeys(
                wanted, 1
            )
            await history.check(row, expected=wanted)


async def test_a_hundred_workers_start_together(
    server: ValkeyServer, own: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    async with watcher_process(own, prefix) as (_, history):
        wanted = drop(history, prefix, *(f"a{number}" for number in range(20)))
        await history.until_revisions(wanted)
        await history.until_complete()
        started = time.monotonic()
        async with following(server.url, tmp_path, count=FLEET_SIZE) as fleet:
            await fleet.until_listed(wanted)
            row.detect_seconds = since(started)
            server.kill()
            await fleet.until_stale()
            wanted |= drop(history, prefix, "later", seed=30)
            server.start()
            back = time.monotonic()
            await fleet.until_listed(wanted)
            row.converge_seconds = since(back)
            assert [follower.reader.listings for follower in fleet.followers] == [1] * FLEET_SIZE
            await fleet.check(row, history, wanted)


SOON_AGAIN = Timings(first_retry_seconds=0.02, last_retry_seconds=0.2)
"""What failed is tried again within a moment."""


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        pytest.param([rejected("engine_refused")], "engine_refused", id="refused"),
        pytest.param([failed("out_of_memory")] * 1_000, "out_of_memory", id="out of memory for a while"),
    ],
)
async def test_vllm_does_not_take_an_update(
    outcomes: list[Exception],
    code: str,
    connection: Connection,
    prefix: Path,
    tmp_path: Path,
    row: Row,
) -> None:
    reports = Reports(connection)
    async with (
        watcher_process(connection, prefix) as (_, history),
        following(connection.url, tmp_path, timings=SOON_AGAIN) as fleet,
    ):
        wanted = drop(history, prefix, "sql", "code")
        await fleet.until_listed(wanted)
        await fleet.serve(wanted)
        for follower in fleet.followers:
            follower.engine.outcomes["sql"].extend(outcomes)

        async def is_told() -> bool:
            told = [
                (await reports.tables([follower.id]))[follower.id].get("sql") for follower in fleet.followers
            ]
            return all(sql is not None and sql.reason and sql.reason.code == code for sql in told)

        old = wanted["sql"]
        updated = time.monotonic()
        (prefix / "sql").rename(tmp_path / "old")
        wanted |= drop(history, prefix, "sql", "math", seed=5)
        await wait_until(is_told, timeout=PATIENCE_SECONDS, description="the reason is reported")
        row.detect_seconds = since(updated)
        await fleet.until_listed(wanted)
        await fleet.serve(["code", "math"])  # the others go on
        for follower in fleet.followers:
            assert follower.table.served["sql"].revision == old
            assert (follower.engine.unloads, follower.table.withdrawn) == ([], [])
        if code == "engine_refused":
            (prefix / "sql").rename(tmp_path / "refused")
            wanted |= drop(history, prefix, "sql", seed=9)
        else:
            for follower in fleet.followers:
                follower.engine.outcomes["sql"].clear()
        mended = time.monotonic()
        await wait_until(
            lambda: all(f.table.served["sql"].revision == wanted["sql"] for f in fleet.followers),
            timeout=PATIENCE_SECONDS,
            description="the update is served",
        )
        row.converge_seconds = since(mended)
        await fleet.check(row, history, wanted)


async def test_workers_agree_when_a_refresh_has_converged(
    connection: Connection, prefix: Path, tmp_path: Path, row: Row
) -> None:
    row.scenario = f"8 workers agree after each of {REFRESHES} refreshes, median"
    async with (
        watcher_process(connection, prefix) as (_, history),
        following(connection.url, tmp_path, count=8) as fleet,
        api_client(Settings(redis_url=connection.url)) as api,
    ):
        wanted: dict[str, Revision] = {}
        seconds = []

        async def all_report() -> bool:
            return len(await Reports(connection).workers()) == len(fleet.followers)

        await wait_until(all_report, timeout=PATIENCE_SECONDS, description="every worker reports")
        for number in range(REFRESHES):
            wanted |= drop(history, prefix, f"a{number}", seed=number + 1)
            asked = time.monotonic()
            answer = (await api.post("/v1/refresh_lora_discovery", json={})).json()
            assert [follower.listed() for follower in fleet.followers] == [wanted] * len(fleet.followers)
            seconds.append(since(asked))
            assert (answer["status"], answer["workers"]["converged"]) == ("converged", 8)
        row.converge_seconds = statistics.median(seconds)
        await fleet.check(row, history, wanted)
