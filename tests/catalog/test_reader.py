"""List, then follow: the same truth as the hash, or a demand to list again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from catalog.adapter import Adapter, AdapterState
from catalog.errors import CatalogRefused, CatalogUnavailable, RecordInvalid, ResyncNeeded
from catalog.store import Batch, Connection, Listing, Publisher, Reader, Withdrawal
from tests.catalog.values import GONE, TRUNCATED, an_adapter, revision

META = "loradrop:{default}:meta"
ADAPTERS = "loradrop:{default}:adapters"
EVENTS = "loradrop:{default}:events"


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> None:
    await publisher.publish(changes, catalog_size=len(changes))


async def next_of(batches: AsyncIterator[Batch]) -> Batch:
    async with asyncio.timeout(10):
        return await anext(batches)


async def test_no_catalog_is_not_an_empty_one(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    assert (await reader.listing()).adapters == {}
    await raw.delete(META)
    with pytest.raises(CatalogUnavailable, match="Start a watcher"):
        await reader.listing()


async def test_a_listing_is_the_whole_catalog(reader: Reader, publisher: Publisher) -> None:
    good, bad = an_adapter("good"), an_adapter("bad", revision=None, state="rejected", reason=TRUNCATED)
    bad = replace(bad, state=AdapterState.REJECTED)
    await publish(publisher, good, bad)
    listing = await reader.listing()
    assert (listing.epoch, listing.seq) == (publisher.lease.epoch, 2)
    assert listing.adapters == {"good": replace(good, seq=1), "bad": replace(bad, seq=2)}


async def test_a_follower_of_a_catalog_being_made_lists_again_once_it_is_complete(
    reader: Reader, publisher: Publisher
) -> None:
    await publish(publisher, an_adapter("early"))
    listing = await reader.listing()
    assert not listing.complete
    async with aclosing(reader.follow(listing)) as batches:
        await publish(publisher, an_adapter("late"))
        assert set((await next_of(batches)).changes) == {"late"}
        await publisher.complete()
        with pytest.raises(ResyncNeeded, match="complete"):
            while True:
                await next_of(batches)
    assert (await reader.listing()).complete


async def test_a_replaced_catalog_is_not_complete_before_it_is_said_again(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publisher.complete()
    await raw.delete(META)
    await publisher.lead()
    assert not (await reader.listing()).complete


async def test_a_catalog_of_another_schema_is_refused(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await raw.hset(META, "schema", "2")
    with pytest.raises(CatalogRefused, match="same version"):
        await reader.listing()


@pytest.mark.parametrize("record", [b"{not json", b"{}", b"\xff\xfe"])
async def test_one_unreadable_record_is_kept_apart_from_the_others(
    reader: Reader, publisher: Publisher, raw: "Redis[str]", record: bytes
) -> None:
    await publish(publisher, an_adapter())
    await raw.hset(ADAPTERS, "broken", record)  # type: ignore[arg-type]  # text or bytes, whatever it says
    listing = await reader.listing()
    assert (set(listing.adapters), listing.unreadable) == ({"sql_adapter"}, {"broken"})
    with pytest.raises(RecordInvalid):
        await reader.get("broken")


async def test_one_record_is_read_by_its_name(reader: Reader, publisher: Publisher) -> None:
    await publish(publisher, an_adapter())
    assert await reader.get("sql_adapter") == replace(an_adapter(), seq=1)
    assert await reader.get("other") is None


async def test_following_yields_what_changes_after_the_listing(reader: Reader, publisher: Publisher) -> None:
    await publish(publisher, an_adapter("before"))
    listing = await reader.listing()
    async with aclosing(reader.follow(listing)) as batches:
        assert await next_of(batches) == Batch(1, listing.cursor, {})
        new = an_adapter("new")
        await publish(
            publisher, new, an_adapter("before", revision=revision("b")), Withdrawal("before", GONE)
        )
        batch = await next_of(batches)
    assert batch.seq == 4
    assert batch.changes == {"new": replace(new, seq=2), "before": None}
    told = [event.type for _, event in await reader.events_after(listing.cursor)]
    assert told == ["added", "modified", "deleted"]


async def test_a_reader_can_follow_on_from_any_batch(reader: Reader, publisher: Publisher) -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter("one"))
    async with aclosing(reader.follow(listing)) as batches:
        first = await next_of(batches)
    await publish(publisher, an_adapter("two"))
    async with aclosing(reader.follow(replace(listing, seq=first.seq, cursor=first.cursor))) as batches:
        assert set((await next_of(batches)).changes) == {"two"}


async def test_every_reader_sees_every_event(
    connection: Connection, reader: Reader, publisher: Publisher
) -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter())
    for follower in (reader, Reader(connection), Reader(connection)):
        async with aclosing(follower.follow(listing)) as batches:
            assert set((await next_of(batches)).changes) == {"sql_adapter"}


async def test_who_is_in_step_is_told_all_by_the_stream(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter("good"), an_adapter("gone"), Withdrawal("gone", GONE))
    await raw.delete(ADAPTERS)
    async with aclosing(reader.follow(listing)) as batches:
        batch = await next_of(batches)
    assert batch.changes == {"good": replace(an_adapter("good"), seq=1), "gone": None}


async def test_who_is_behind_is_given_the_newest_record_and_none_in_between(
    reader: Reader, publisher: Publisher
) -> None:
    listing = await reader.listing()
    revisions = [revision("ab"[number % 2]) for number in range(299)]
    await publish(publisher, *(an_adapter(revision=digest) for digest in revisions), an_adapter("last"))
    async with aclosing(reader.follow(listing)) as batches:
        first, second = await next_of(batches), await next_of(batches)
    assert first.seq < second.seq == 300
    newest = replace(an_adapter(revision=revisions[-1]), seq=299)
    assert first.changes == {"sql_adapter": newest}
    assert second.changes == {"sql_adapter": newest, "last": replace(an_adapter("last"), seq=300)}


async def test_an_entry_of_a_watcher_that_does_not_carry_records_is_looked_up(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter())
    await retell(raw, lambda fields: fields.pop("record"))
    async with aclosing(reader.follow(listing)) as batches:
        assert (await next_of(batches)).changes == {"sql_adapter": replace(an_adapter(), seq=1)}


async def test_an_unreadable_record_is_left_out_of_a_batch(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter("good"), an_adapter("broken"))
    await retell(raw, lambda fields: fields.update(record=fields["record"].replace('"name":"broken"', "{")))
    async with aclosing(reader.follow(listing)) as batches:
        batch = await next_of(batches)
    assert (set(batch.changes), batch.seq) == ({"good"}, 2)


async def retell(raw: "Redis[str]", change: Callable[[dict[str, str]], object]) -> None:
    """Write the stream again, with `change` made to each entry."""
    entries = await raw.xrange(EVENTS)
    await raw.delete(EVENTS)
    for entry_id, fields in entries:
        change(fields)
        await raw.xadd(EVENTS, fields, id=entry_id)  # type: ignore[arg-type]  # a dict of text will do


async def resynced(reader: Reader, listing: Listing) -> str:
    """Follow until the reader gives up, and return why."""
    async with aclosing(reader.follow(listing)) as batches:
        with pytest.raises(ResyncNeeded) as needed:
            while True:
                await next_of(batches)
    return needed.value.message


async def test_a_trimmed_stream_is_a_gap(reader: Reader, publisher: Publisher, raw: "Redis[str]") -> None:
    listing = await reader.listing()
    await publish(publisher, an_adapter("one"), an_adapter("two"), an_adapter("three"))
    await raw.xtrim(EVENTS, maxlen=1, approximate=False)
    assert await resynced(reader, listing) == (
        f"Expected seq 1 of epoch {listing.epoch}, read 3 of {listing.epoch}."
    )


async def test_an_emptied_redis_is_noticed_on_an_idle_stream(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await raw.flushall()
    assert "replaced" in await resynced(reader, listing)


async def test_a_new_epoch_is_noticed_by_its_first_event(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    listing = await reader.listing()
    await raw.flushall()
    await publisher.lead()
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    assert publisher.lease.epoch in await resynced(reader, listing)


async def test_a_redis_that_fell_back_is_noticed(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    listing = await reader.listing()
    await raw.hset(META, "seq", "1")
    assert "fell back" in await resynced(reader, listing)


async def test_a_catalog_ahead_of_a_stream_that_says_nothing_is_noticed(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    """After a failover to a server whose clock is behind, new entries can lie before the cursor."""
    listing = replace(await reader.listing(), cursor="9999999999999-0")
    await publish(publisher, an_adapter())
    assert "ahead" in await resynced(reader, listing)


async def test_an_entry_that_is_not_ours_means_list_again(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await raw.xadd(EVENTS, {"hello": "world"})
    assert "not of our shape" in await resynced(reader, listing)


async def test_events_for_people_carry_the_id_of_their_entry(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    assert await reader.newest_cursor() == "0-0"
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    (first, one), (second, two) = await reader.events_after("0-0")
    assert (one.name, two.name) == ("one", "two")
    assert await reader.newest_cursor() == second
    assert [entry_id for entry_id, _ in await reader.events_after(first)] == [second]
    assert await reader.events_after(second, block_seconds=0.01) == []
    await raw.xtrim(EVENTS, maxlen=1, approximate=False)
    assert (await reader.holds(first), await reader.holds(second)) == (False, True)


changes = st.lists(
    st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from(["a", "b", "settling", "gone"])),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(changes=changes, listed_after=st.integers(0, 20))
async def test_a_listing_and_what_follows_it_is_always_the_catalog(
    connection: Connection, changes: list[tuple[str, str]], listed_after: int
) -> None:
    await connection.commands.flushall()
    publisher, reader = Publisher(connection, owner="watcher-1"), Reader(connection, block_seconds=0.001)
    await publisher.lead()
    wanted = [_change(name, what) for name, what in changes]
    await publish(publisher, *wanted[:listed_after])
    listing = await reader.listing()
    held: dict[str, Adapter] = dict(listing.adapters)
    await publish(publisher, *wanted[listed_after:])
    async with aclosing(reader.follow(listing)) as batches:
        async for batch in batches:
            held.update({name: adapter for name, adapter in batch.changes.items() if adapter is not None})
            for name in [name for name, adapter in batch.changes.items() if adapter is None]:
                held.pop(name, None)
            if not batch.changes:
                break
    now = await reader.listing()
    assert (held, batch.seq) == (now.adapters, now.seq)


def _change(name: str, what: str) -> Adapter | Withdrawal:
    match what:
        case "gone":
            return Withdrawal(name, GONE)
        case "settling":
            return an_adapter(name, state=AdapterState.SETTLING)
        case digit:
            return an_adapter(name, revision=revision(digit))
