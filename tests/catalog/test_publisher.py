"""One writer, whole changes, no gaps: what Redis holds after each publish."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from catalog.adapter import Adapter, AdapterState
from catalog.errors import LeaseHeld, LeaseLost
from catalog.store import Connection, Publisher, Reader, Reports, Withdrawal
from tests.catalog.values import GONE, NOON, TRUNCATED, a_watcher, an_adapter, revision
from tests.waiting import wait_until

META = "loradrop:{default}:meta"
ADAPTERS = "loradrop:{default}:adapters"
EVENTS = "loradrop:{default}:events"
WATCHER = "loradrop:{default}:watcher"


@pytest.fixture
async def rival(redis_url: str) -> AsyncIterator[Publisher]:
    """Another watcher, on its own connection, that does not lead yet."""
    async with Connection(redis_url) as connection:
        yield Publisher(connection, owner="watcher-2")


async def events(raw: "Redis[str]") -> list[dict[str, str]]:
    return [fields for _, fields in await raw.xrange(EVENTS)]


async def types(raw: "Redis[str]") -> list[str]:
    return [event["type"] for event in await events(raw)]


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> int:
    return await publisher.publish(changes, catalog_size=len(changes))


async def test_a_change_is_in_the_hash_and_in_the_stream(publisher: Publisher, raw: "Redis[str]") -> None:
    assert await publish(publisher, an_adapter()) == 1
    [event] = await events(raw)
    assert event == {
        "epoch": publisher.lease.epoch,
        "seq": "1",
        "type": "added",
        "name": "sql_adapter",
        "revision": revision("a"),
        "state": "ready",
        "reason_code": "",
        "reason": "",
        "at": "2026-11-23T12:00:00Z",
    }
    assert (await raw.hget(ADAPTERS, "sql_adapter") or "").startswith('{"seq":1,"name":"sql_adapter"')
    assert (await raw.hgetall(META)).items() >= {"seq": "1", "schema": "1", "fence": "1"}.items()


async def test_the_same_again_changes_nothing_whatever_its_times(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    before = await raw.hgetall(ADAPTERS)
    assert await publish(publisher, an_adapter(updated_at=NOON.replace(year=2027))) == 1
    assert await raw.hgetall(ADAPTERS) == before
    assert await types(raw) == ["added"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"revision": revision("b")}, "modified"),
        ({}, {"state": AdapterState.SETTLING}, "noted"),
        ({}, {"state": AdapterState.REJECTED, "reason": TRUNCATED}, "noted"),
        ({}, {"prefix": "/mnt/loras"}, "noted"),
        ({"reason": TRUNCATED}, {"reason": replace(TRUNCATED, message="now 2 bytes short")}, "noted"),
        ({"revision": None, "state": AdapterState.INCOMPLETE}, {}, "added"),
        ({"revision": None, "state": AdapterState.INCOMPLETE}, {"revision": None}, "noted"),
    ],
    ids=["new bytes", "state", "rejected", "moved", "other reason", "complete", "still nothing to serve"],
)
async def test_what_changed_decides_the_type_of_the_event(
    publisher: Publisher,
    raw: "Redis[str]",
    before: dict[str, Any],
    after: dict[str, Any],
    expected: str,
) -> None:
    await publish(publisher, an_adapter(**before))
    assert await publish(publisher, an_adapter(**after)) == 2
    assert (await types(raw))[1:] == [expected]


async def test_a_withdrawn_name_is_gone_and_the_event_says_why(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter(), Withdrawal("sql_adapter", GONE))
    assert await raw.hgetall(ADAPTERS) == {}
    event = (await events(raw))[-1]
    assert (event["type"], event["revision"], event["state"]) == ("deleted", revision("a"), "")
    assert (event["reason_code"], event["reason"]) == (GONE.code, GONE.message)


async def test_withdrawing_what_is_not_there_changes_nothing(publisher: Publisher, raw: "Redis[str]") -> None:
    assert await publish(publisher, Withdrawal("sql_adapter", GONE)) == 0
    assert await events(raw) == []


async def test_a_name_that_comes_back_is_added_again(publisher: Publisher, raw: "Redis[str]") -> None:
    await publish(publisher, an_adapter(), Withdrawal("sql_adapter", GONE), an_adapter())
    assert await types(raw) == ["added", "deleted", "added"]


async def test_seq_has_no_gaps_over_many_changes(publisher: Publisher, raw: "Redis[str]") -> None:
    changes: Sequence[Adapter] = [an_adapter(f"adapter-{number}") for number in range(500)]
    assert await publish(publisher, *changes, *changes) == 500
    assert [int(event["seq"]) for event in await events(raw)] == list(range(1, 501))
    assert publisher.seq == 500


async def test_the_stream_keeps_ten_events_for_each_adapter_and_ten_thousand_at_least(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    many = [an_adapter(f"adapter-{number}") for number in range(10_500)]
    await publisher.publish(many, catalog_size=1)
    assert 10_000 <= await raw.xlen(EVENTS) < 10_200  # trimmed a whole node of the stream at a time
    await publisher.publish([an_adapter("one-more")], catalog_size=20_000)
    assert await raw.xlen(EVENTS) > 10_000


async def test_a_record_that_is_not_ours_is_overwritten(publisher: Publisher, raw: "Redis[str]") -> None:
    await raw.hset(ADAPTERS, mapping={"sql_adapter": "{not json", "other": "[]"})
    assert await publish(publisher, an_adapter(), Withdrawal("other", GONE)) == 2
    assert await types(raw) == ["added", "deleted"]
    assert list(await raw.hgetall(ADAPTERS)) == ["sql_adapter"]


async def test_names_and_reasons_of_any_kind_come_back(publisher: Publisher, reader: Reader) -> None:
    odd = an_adapter('räk"s\\m\n{}', reason=replace(TRUNCATED, message='"quoted" \\ 动作'))
    await publish(publisher, odd)
    assert (await reader.listing()).adapters == {odd.name: replace(odd, seq=1)}


async def test_leading_again_keeps_the_lease(publisher: Publisher) -> None:
    lease = publisher.lease
    assert await publisher.lead() == lease


async def test_a_lease_is_held_until_it_is_given_back(publisher: Publisher, rival: Publisher) -> None:
    with pytest.raises(LeaseHeld, match="watcher-1") as held:
        await rival.lead()
    assert held.value.owner == "watcher-1"
    await publisher.resign()
    lease = await rival.lead()
    assert lease.fence == "2"


async def test_without_a_lease_nothing_is_published(publisher: Publisher) -> None:
    await publisher.resign()
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter())


async def test_giving_back_a_lease_that_another_has_taken_leaves_it_there(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await rival.lead(presumed_dead="watcher-1")
    await publisher.resign()
    assert await raw.hget(WATCHER, "owner") == "watcher-2"


async def test_a_lease_runs_out_when_its_owner_falls_silent(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    assert 0 < await raw.pttl(WATCHER) <= 10_000
    await raw.pexpire(WATCHER, 20)

    async def taken_over() -> bool:
        try:
            await rival.lead()
        except LeaseHeld:
            return False
        return True

    await wait_until(taken_over, timeout=5, description="the rival leads")
    with pytest.raises(LeaseLost, match="taken over"):
        await publish(publisher, an_adapter())


async def test_an_owner_known_to_be_dead_is_taken_over_at_once_and_can_publish_nothing(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    lease = await rival.lead(presumed_dead="watcher-1")
    assert (lease.fence, lease.epoch, rival.seq) == ("2", publisher.lease.epoch, 1)
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter(revision=revision("b")))
    with pytest.raises(LeaseLost):
        await publisher.report(a_watcher())
    assert await types(raw) == ["added"]


async def test_another_than_the_presumed_dead_is_not_taken_over(
    publisher: Publisher, rival: Publisher
) -> None:
    with pytest.raises(LeaseHeld):
        await rival.lead(presumed_dead="watcher-0")


async def test_a_heartbeat_keeps_the_lease_and_tells_what_the_watcher_does(
    publisher: Publisher, raw: "Redis[str]", reports: Reports
) -> None:
    await raw.pexpire(WATCHER, 1_000)
    await publisher.report(a_watcher(degraded=TRUNCATED))
    assert await raw.pttl(WATCHER) > 5_000
    assert await reports.watcher() == a_watcher(degraded=TRUNCATED)


async def test_an_emptied_redis_gets_a_new_epoch_and_everything_again(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    old = publisher.lease.epoch
    await raw.flushall()
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter())
    assert (await publisher.lead()).epoch != old
    assert await publish(publisher, an_adapter()) == 1


async def test_after_redis_was_emptied_an_old_watcher_with_the_same_fence_cannot_come_back(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await raw.flushall()
    assert (await rival.lead()).fence == publisher.lease.fence
    with pytest.raises(LeaseLost, match="replaced"):
        await publisher.report(a_watcher())
    with pytest.raises(LeaseHeld, match="watcher-2"):
        await publisher.lead()
    assert await publish(rival, an_adapter()) == 1


async def test_a_catalog_that_was_replaced_takes_nothing_from_the_old_epoch(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await raw.hset(META, "epoch", "another")
    with pytest.raises(LeaseLost, match="replaced"):
        await publish(publisher, an_adapter())
    assert (await publisher.lead()).epoch == "another"


@pytest.mark.parametrize("keeps_its_lease", [True, False])
async def test_a_redis_that_fell_back_is_started_anew(
    publisher: Publisher, raw: "Redis[str]", keeps_its_lease: bool
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"), an_adapter("three"))
    old = publisher.lease.epoch
    await raw.hset(META, "seq", "1")
    if keeps_its_lease:
        with pytest.raises(LeaseLost, match="older data"):
            await publish(publisher, an_adapter("four"))
    else:
        await publisher.resign()
    assert (await publisher.lead()).epoch != old
    assert publisher.seq == 0
    assert await raw.exists(ADAPTERS, EVENTS) == 0
    assert await publish(publisher, an_adapter("one")) == 1


async def test_a_catalog_of_another_schema_is_started_anew(publisher: Publisher, raw: "Redis[str]") -> None:
    await publish(publisher, an_adapter())
    old = publisher.lease.epoch
    await raw.hset(META, "schema", "0")
    assert (await publisher.lead()).epoch != old
    assert await raw.hgetall(ADAPTERS) == {}


async def test_each_pool_has_its_own_catalog_and_watcher(publisher: Publisher, redis_url: str) -> None:
    async with Connection(redis_url, pool="blue") as connection:
        blue = Publisher(connection, owner="watcher-blue")
        await blue.lead()
        assert await publish(blue, an_adapter("blue_adapter")) == 1
        await publish(publisher, an_adapter())
        assert list((await Reader(connection).listing()).adapters) == ["blue_adapter"]
