"""Manual refreshes: ask, be asked, answer."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loradrop.catalog.errors import NoWatcher, TooManyRefreshes, UnknownRefresh
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.catalog.store import Connection, Publisher, Refreshes
from tests.catalog.values import NOON, TRUNCATED

REQUEST = RefreshRequest(id="r1", at=NOON, names=("sql_adapter",), dry_run=True, timeout_seconds=12.5)
RESULT = RefreshResult(
    id="r1",
    status=RefreshStatus.SCANNED,
    at=NOON,
    discovered=("sql_adapter",),
    rejected={"broken": TRUNCATED},
    total=2,
    seq=7,
)


async def test_without_a_watcher_a_request_is_refused_and_leaves_nothing(
    refreshes: Refreshes, raw: "Redis[str]"
) -> None:
    with pytest.raises(NoWatcher, match="loradrop watch"):
        await refreshes.request(REQUEST)
    assert await raw.keys("*") == []


async def test_a_request_reaches_the_watcher_as_it_was_asked(
    refreshes: Refreshes, publisher: Publisher
) -> None:
    await refreshes.request(REQUEST)
    cursor, requests = await refreshes.requests_after("0-0")
    assert requests == [REQUEST]
    assert (await refreshes.result("r1")).status is RefreshStatus.PENDING
    await refreshes.request(replace(REQUEST, id="r2"))
    _, later = await refreshes.requests_after(cursor)
    assert [request.id for request in later] == ["r2"]


async def test_asking_the_same_twice_is_asking_once(refreshes: Refreshes, publisher: Publisher) -> None:
    await refreshes.request(REQUEST)
    await refreshes.request(REQUEST)
    _, requests = await refreshes.requests_after("0-0")
    assert requests == [REQUEST]


async def test_an_answer_is_read_by_the_client_that_asked(
    refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await refreshes.request(REQUEST)
    await refreshes.answer(RESULT)
    assert await refreshes.result("r1") == RESULT
    assert 0 < await raw.ttl("loradrop:{default}:refresh:r1") <= 3600


async def test_a_watcher_that_starts_is_asked_only_what_has_no_answer(
    refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    for request_id in ("answered", "waiting", "expired"):
        await refreshes.request(replace(REQUEST, id=request_id))
    await refreshes.answer(replace(RESULT, id="answered"))
    await raw.delete("loradrop:{default}:refresh:expired")
    await raw.xadd("loradrop:{default}:refreshes", {"not": "ours"})
    _, requests = await refreshes.requests_after("0-0")
    assert [request.id for request in requests] == ["waiting"]


async def test_an_unknown_refresh_is_said_to_be_unknown(refreshes: Refreshes) -> None:
    with pytest.raises(UnknownRefresh, match="'nope'"):
        await refreshes.result("nope")


async def test_nothing_asked_is_an_answer_too(refreshes: Refreshes, publisher: Publisher) -> None:
    assert await refreshes.requests_after("0-0") == ("0-0", [])


async def test_no_more_are_taken_in_a_minute_than_the_stream_must_hold(
    connection: Connection, publisher: Publisher, raw: "Redis[str]"
) -> None:
    few = Refreshes(connection, max_per_minute=3)
    for number in range(3):
        await few.request(replace(REQUEST, id=f"r{number}"))
    with pytest.raises(TooManyRefreshes, match="3 refreshes") as refused:
        await few.request(replace(REQUEST, id="one too many"))
    assert 1 <= refused.value.retry_after_seconds <= 60
    assert await raw.exists("loradrop:{default}:refresh:one too many") == 0
    await few.request(replace(REQUEST, id="r2"))  # sent twice is asked once: nothing more to take in
    assert await raw.xlen("loradrop:{default}:refreshes") == 3


async def test_what_was_asked_more_than_a_minute_ago_does_not_count(
    connection: Connection, publisher: Publisher, raw: "Redis[str]"
) -> None:
    seconds, _ = await raw.time()
    for number in range(3):
        await raw.xadd("loradrop:{default}:refreshes", {"id": "old"}, id=f"{(seconds - 61) * 1000}-{number}")
    await Refreshes(connection, max_per_minute=1).request(REQUEST)
    assert (await Refreshes(connection).result("r1")).status is RefreshStatus.PENDING


async def test_what_was_asked_is_kept_with_how_far_it_has_come(
    refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    asked = [replace(REQUEST, id=name, asked_by=f"by-{name}") for name in ("answered", "waiting", "expired")]
    for request in asked:
        await refreshes.request(request)
    await refreshes.answer(replace(RESULT, id="answered"))
    await raw.delete("loradrop:{default}:refresh:expired")
    await raw.xadd("loradrop:{default}:refreshes", {"not": "ours"})
    statuses = [RefreshStatus.SCANNED, RefreshStatus.PENDING, None]
    assert await refreshes.asked(10) == [*zip(asked, statuses, strict=True)][::-1]
    assert await refreshes.asked(2) == [(asked[2], None)]
