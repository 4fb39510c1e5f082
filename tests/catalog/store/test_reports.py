"""What workers say about themselves, and how long it is believed."""

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import Revision
from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.catalog.store import Publisher, Reports
from loradrop.catalog.store.reports import WORKER_TTL, Meta
from tests.catalog.values import NOON, TRUNCATED, a_worker, revision

ID = "gpu-1:8000"
WORKERS = "loradrop:{default}:workers"
WORKER = f"loradrop:{{default}}:worker:{ID}"
TABLE = f"{WORKER}:adapters"


def loaded(digest: Revision | None = None) -> WorkerAdapter:
    return WorkerAdapter(state=WorkerState.LOADED, revision=digest or revision("a"), loads=1, last_used=NOON)


async def test_a_worker_and_what_it_says_of_its_adapters_come_back(reports: Reports) -> None:
    status = a_worker(epoch="e", observed_seq=3, counts={"loaded": 1})
    table = {"one": loaded(), "two": WorkerAdapter(state=WorkerState.REJECTED, reason=TRUNCATED)}
    await reports.report_worker(status, table)
    assert await reports.workers() == {ID: status}
    assert (await reports.tables([ID]))[ID] == table


async def test_a_heartbeat_adds_changes_and_forgets_single_adapters(reports: Reports) -> None:
    await reports.report_worker(a_worker(), {"one": loaded(), "two": loaded()})
    await reports.report_worker(a_worker(), {"one": None, "two": loaded(revision("b"))})
    await reports.report_worker(a_worker(), {})
    assert (await reports.tables([ID]))[ID] == {"two": loaded(revision("b"))}


async def test_a_whole_picture_replaces_what_was_there(reports: Reports) -> None:
    await reports.report_worker(a_worker(), {"one": loaded()})
    await reports.report_worker(a_worker(), {"two": loaded()}, everything=True)
    assert set((await reports.tables([ID]))[ID]) == {"two"}


async def test_all_a_worker_reports_has_a_time_to_live(reports: Reports, raw: "Redis[str]") -> None:
    await reports.report_worker(a_worker(), {"one": loaded()})
    limit = WORKER_TTL / timedelta(milliseconds=1)
    assert 0 < await raw.pttl(WORKER) <= limit
    assert 0 < await raw.pttl(TABLE) <= limit


async def test_a_worker_whose_heartbeat_has_expired_is_dead(reports: Reports, raw: "Redis[str]") -> None:
    await reports.report_worker(a_worker(), {})
    await raw.delete(WORKER, TABLE)
    assert await reports.workers() == {}


@pytest.mark.parametrize("hours", [-12, 12])
async def test_a_living_worker_is_shown_whatever_its_clock_says(reports: Reports, hours: int) -> None:
    other_clock = datetime.now(UTC) + timedelta(hours=hours)
    await reports.report_worker(a_worker(last_heartbeat=other_clock), {})
    assert set(await reports.workers()) == {ID}


async def test_ids_of_workers_dead_for_long_are_forgotten(reports: Reports, raw: "Redis[str]") -> None:
    await reports.report_worker(a_worker("old:8000", last_heartbeat=NOON), {})
    await reports.report_worker(a_worker(last_heartbeat=NOON + timedelta(days=2)), {})
    assert await raw.zrange(WORKERS, 0, -1) == [ID]


async def test_a_worker_that_stops_leaves_nothing_behind(reports: Reports, raw: "Redis[str]") -> None:
    await reports.report_worker(a_worker(), {"one": loaded()})
    await reports.forget_worker(ID)
    assert await raw.keys("*worker*") == []


async def test_what_is_not_ours_is_left_out(reports: Reports, raw: "Redis[str]") -> None:
    await reports.report_worker(a_worker(), {"one": loaded()})
    await reports.report_worker(a_worker("broken:1"), {})
    await raw.hset("loradrop:{default}:worker:broken:1", "observed_seq", "many")
    await raw.hset(TABLE, "broken", "{")
    assert set(await reports.workers()) == {ID}
    assert set((await reports.tables([ID]))[ID]) == {"one"}


async def test_several_tables_come_at_once(reports: Reports) -> None:
    await reports.report_worker(a_worker(), {"one": loaded()})
    assert await reports.tables([]) == {}
    assert await reports.tables([ID, "unknown:1"]) == {ID: {"one": loaded()}, "unknown:1": {}}


async def test_without_a_watcher_there_is_no_heartbeat(reports: Reports) -> None:
    assert await reports.watcher() is None
    assert await reports.meta() is None


async def test_a_watcher_that_has_not_reported_yet_has_no_heartbeat(
    reports: Reports, publisher: Publisher
) -> None:
    assert await reports.watcher() is None
    assert await reports.meta() == Meta(publisher.lease.epoch, 0)
