"""One writer, whole changes, no gaps: what Redis holds after each publish."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.errors import LeaseLost
from loradrop.catalog.store import Connection, Publisher, Reader, Withdrawal
from tests.catalog.reading import ADAPTERS, EVENTS, META
from tests.catalog.values import GONE, NOON, TRUNCATED, an_adapter, revision

WATCHER = "loradrop:{default}:watcher"


async def events(raw: "Redis[str]") -> list[dict[str, str]]:
    return [fields for _, fields in await raw.xrange(EVENTS)]


async def types(raw: "Redis[str]") -> list[str]:
    return [event["type"] for event in await events(raw)]


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> int:
    return await publisher.publish(changes, catalog_size=len(changes))


async def test_a_change_is_in_the_hash_and_in_the_stream(publisher: Publisher, raw: "Redis[str]") -> None:
    assert await publish(publisher, an_adapter()) == 1
    [event] = await events(raw)
    record = await raw.hget(ADAPTERS, "sql_adapter") or ""
    assert record.startswith('{"seq":1,"name":"sql_adapter"')
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
        "record": record,
    }
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


async def test_each_pool_has_its_own_catalog_and_watcher(publisher: Publisher, redis_url: str) -> None:
    async with Connection(redis_url, pool="blue") as connection:
        blue = Publisher(connection, owner="watcher-blue")
        await blue.lead()
        assert await publish(blue, an_adapter("blue_adapter")) == 1
        await publish(publisher, an_adapter())
        assert list((await Reader(connection).listing()).adapters) == ["blue_adapter"]


async def test_an_empty_catalog_is_verified_by_its_size(publisher: Publisher) -> None:
    await publisher.verify({}, size=0)
    with pytest.raises(LeaseLost, match="holds 0 records instead of 1"):
        await publisher.verify({}, size=1)
