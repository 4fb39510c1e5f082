"""What a follower cannot make up for is a demand to list again."""

from contextlib import aclosing
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loradrop.catalog.errors import CatalogUnavailable, ResyncNeeded
from loradrop.catalog.store import Connection, Listing, Publisher, Reader, Timeouts
from tests.catalog.reading import EVENTS, META, next_of, publish
from tests.catalog.values import an_adapter, revision


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


async def test_of_very_many_missed_changes_the_listing_is_less_to_read(
    reader: Reader, publisher: Publisher
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    listing = await reader.listing()
    revisions = [revision("bc"[number % 2]) for number in range(999)]
    await publish(publisher, *(an_adapter("one", revision=digest) for digest in revisions))
    async with aclosing(reader.follow(listing)) as batches:
        assert (await next_of(batches)).changes.keys() == {"one"}
    await publish(publisher, an_adapter("two", revision=revision("b")))
    assert await resynced(reader, listing) == "As many changes came after seq 2 as there are adapters."


async def test_a_redis_emptied_between_an_event_and_its_record_takes_nothing_away(
    connection: Connection, publisher: Publisher, raw: "Redis[str]"
) -> None:
    class Emptied(Reader):
        """Reads events whose Redis is gone a moment later."""

        async def _read(self, cursor: str, block_seconds: float) -> list[tuple[str, dict[str, str]]]:
            entries = await super()._read(cursor, block_seconds)
            await raw.flushall()
            return entries

    reader = Emptied(connection)
    listing = await reader.listing()
    await publish(publisher, *(an_adapter(f"a{number}") for number in range(300)))
    async with aclosing(reader.follow(listing)) as batches:
        with pytest.raises(ResyncNeeded, match="was replaced, or fell back, behind seq 256"):
            await next_of(batches)


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


async def test_what_replaces_meta_is_noticed_while_the_catalog_is_incomplete(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await raw.delete(META)
    await raw.set(META, "not what was there")
    async with aclosing(reader.follow(listing)) as batches:
        with pytest.raises(CatalogUnavailable, match="damaged"):
            await next_of(batches)


@pytest.mark.parametrize("count", [1, 300])
async def test_what_replaces_meta_is_noticed_where_records_are_to_be_looked_up(
    reader: Reader, publisher: Publisher, raw: "Redis[str]", count: int
) -> None:
    await publisher.complete()
    listing = await reader.listing()
    await publish(publisher, *(an_adapter(f"a{number}") for number in range(count)))
    for entry_id, fields in await raw.xrange(EVENTS):
        await raw.xdel(EVENTS, entry_id)
        del fields["record"]
        await raw.xadd(EVENTS, fields)  # type: ignore[arg-type]  # a dict of text will do
    await raw.delete(META)
    await raw.set(META, "not what was there")
    async with aclosing(reader.follow(listing)) as batches:
        with pytest.raises(CatalogUnavailable, match="damaged"):
            await next_of(batches)


async def test_a_catalog_that_becomes_complete_is_listed_soon_by_a_reader_whose_reads_block_for_long(
    connection: Connection, publisher: Publisher
) -> None:
    reader = Reader(connection, block_seconds=60.0)
    listing = await reader.listing()
    async with aclosing(reader.follow(listing)) as batches:
        assert (await next_of(batches)).changes == {}
        await publisher.complete()
        with pytest.raises(ResyncNeeded, match="complete"):
            await next_of(batches)


async def test_a_read_may_block_for_longer_than_a_command_may_take(
    redis_url: str, publisher: Publisher
) -> None:
    await publisher.complete()
    timeouts = Timeouts(command_seconds=0.2, block_seconds=0.5)
    async with Connection(redis_url, timeouts=timeouts) as patient:
        reader = Reader(patient)
        async with aclosing(reader.follow(await reader.listing())) as batches:
            assert (await next_of(batches)).changes == {}


async def test_a_read_that_may_hardly_block_does_not_block_for_ever(
    connection: Connection, publisher: Publisher
) -> None:
    reader = Reader(connection, block_seconds=0.000_1)
    async with aclosing(reader.follow(await reader.listing())) as batches:
        assert (await next_of(batches)).changes == {}


async def test_an_entry_that_is_not_ours_means_list_again(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    listing = await reader.listing()
    await raw.xadd(EVENTS, {"hello": "world"})
    assert "not of our shape" in await resynced(reader, listing)
