"""List, then follow: the same truth as the hash."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.errors import ResyncNeeded
from loradrop.catalog.store import Batch, Connection, Publisher, Reader, Withdrawal
from tests.catalog.reading import ADAPTERS, EVENTS, next_of, publish
from tests.catalog.values import GONE, an_adapter, revision


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
    await publish(publisher, *(an_adapter(f"other-{number}") for number in range(300)))
    listing = await reader.listing()
    revisions = [revision("ab"[number % 2]) for number in range(299)]
    await publish(publisher, *(an_adapter(revision=digest) for digest in revisions), an_adapter("last"))
    async with aclosing(reader.follow(listing)) as batches:
        first, second = await next_of(batches), await next_of(batches)
    assert first.seq < second.seq == 600
    newest = replace(an_adapter(revision=revisions[-1]), seq=599)
    assert first.changes == {"sql_adapter": newest}
    assert second.changes == {"sql_adapter": newest, "last": replace(an_adapter("last"), seq=600)}


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


changes = st.lists(
    st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from(["a", "b", "settling", "gone"])),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
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
