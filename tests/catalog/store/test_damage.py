"""A damaged catalog is noticed by the watcher's next heartbeats and never taken for a complete one."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import Adapter, Reason
from loradrop.catalog.errors import CatalogUnavailable, LeaseLost, LoradropError, ResyncNeeded
from loradrop.catalog.store import Connection, Publisher, Reader, Reports
from tests.catalog.reading import ADAPTERS, EVENTS, META, next_of, publish
from tests.catalog.values import a_watcher, an_adapter, revision

WATCHER = "loradrop:{default}:watcher"
LAST_ID = "18446744073709551615-18446744073709551615"
RECORDS = {name: an_adapter(name) for name in ("one", "two", "three")}

Damage = Callable[["Redis[str]"], Awaitable[object]]


async def wrong_type(raw: "Redis[str]", key: str) -> None:
    await raw.delete(key)
    await raw.set(key, "not what was there")


async def another_record(raw: "Redis[str]") -> None:
    record = await raw.hget(ADAPTERS, "one")
    assert record is not None
    await raw.hset(ADAPTERS, "one", record.replace("a" * 64, "b" * 64))


async def renamed_record(raw: "Redis[str]") -> None:
    await raw.hdel(ADAPTERS, "one")
    await raw.hset(ADAPTERS, "another", "{}")


async def foreign_record(raw: "Redis[str]", name: str | bytes = "foreign") -> None:
    await raw.hset(ADAPTERS, name, "{}")
    await raw.hincrby(META, "count", 1)


SEEN_BY_ITS_SIZE: dict[str, Damage] = {
    "the records are lost": lambda raw: raw.delete(ADAPTERS),
    "one record is lost": lambda raw: raw.hdel(ADAPTERS, "two"),
    "a record too many": lambda raw: raw.hset(ADAPTERS, "foreign", "{}"),
    "the count is lost": lambda raw: raw.hdel(META, "count"),
    "the count is no number": lambda raw: raw.hset(META, "count", "many"),
}
SEEN_BY_ITS_FIELDS: dict[str, Damage] = {
    "meta is lost": lambda raw: raw.delete(META),
    "the epoch is lost": lambda raw: raw.hdel(META, "epoch"),
    "the epoch is not text": lambda raw: raw.hset(META, "epoch", b"\xff\xfe"),
    "the seq is lost": lambda raw: raw.hdel(META, "seq"),
    "the seq is no number": lambda raw: raw.hset(META, "seq", "many"),
    "the seq has too many digits": lambda raw: raw.hset(META, "seq", "9" * 5000),
    "the seq is one that Lua writes with an exponent": lambda raw: raw.hset(META, "seq", "9" * 14),
    "the fence is lost": lambda raw: raw.hdel(META, "fence"),
    "the schema is lost": lambda raw: raw.hdel(META, "schema"),
    "the schema is another": lambda raw: raw.hset(META, "schema", "99"),
    "complete is lost": lambda raw: raw.hdel(META, "complete"),
    "complete is something else": lambda raw: raw.hset(META, "complete", "maybe"),
    "complete is taken back": lambda raw: raw.hset(META, "complete", "0"),
}
SEEN_BY_ITS_TYPE: dict[str, Damage] = {
    "meta is no hash": lambda raw: wrong_type(raw, META),
    "the records are no hash": lambda raw: wrong_type(raw, ADAPTERS),
    "the events are no stream": lambda raw: wrong_type(raw, EVENTS),
    "the watcher is no hash": lambda raw: wrong_type(raw, WATCHER),
}
SEEN_BY_ITS_RECORDS: dict[str, Damage] = {
    "a record is no JSON": lambda raw: raw.hset(ADAPTERS, "one", "{"),
    "a record is of another shape": lambda raw: raw.hset(ADAPTERS, "one", '{"name": "one"}'),
    "a record is nested too deeply": lambda raw: raw.hset(ADAPTERS, "one", "[" * 200_000),
    "a record says something else": another_record,
    "a record is under another name": renamed_record,
    "a record too many, and counted": foreign_record,
    "a record too many whose name is not text": lambda raw: foreign_record(raw, b"\xff"),
    "the records of two names are exchanged": lambda raw: raw.hset(
        ADAPTERS, mapping={"one": "{}", "two": "{}"}
    ),
}
ALL = SEEN_BY_ITS_SIZE | SEEN_BY_ITS_FIELDS | SEEN_BY_ITS_TYPE | SEEN_BY_ITS_RECORDS


async def publish_all(publisher: Publisher) -> None:
    """Publish the disk, as a watcher that leads does."""
    await publish(publisher, *RECORDS.values())
    await publisher.complete()
    await heartbeat(publisher)


async def heartbeat(publisher: Publisher) -> None:
    await publisher.report(a_watcher())
    await publisher.verify(RECORDS, size=len(RECORDS))


def facts(adapters: "dict[str, Adapter]") -> dict[str, object]:
    return {name: adapter.revision for name, adapter in adapters.items()}


@pytest.mark.parametrize("what", ALL)
async def test_damage_ends_the_lease_at_the_next_heartbeat_and_leading_again_starts_anew(
    what: str, publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    before = publisher.lease.epoch
    await ALL[what](raw)

    with pytest.raises(LeaseLost):
        await heartbeat(publisher)
    lease = await publisher.lead()

    if what != "the watcher is no hash":
        assert lease.epoch != before
        assert not (await reader.listing()).complete
    await publish_all(publisher)
    listing = await reader.listing()
    assert (facts(dict(listing.adapters)), listing.complete) == (facts(RECORDS), True)


@pytest.mark.parametrize("what", ALL)
async def test_a_new_watcher_publishes_a_damaged_catalog_again(
    what: str, connection: Connection, publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await publisher.resign()
    await ALL[what](raw)
    successor = Publisher(connection, owner="watcher-2")
    await successor.lead()
    if what in SEEN_BY_ITS_RECORDS:
        with pytest.raises(LeaseLost):
            await successor.verify(RECORDS, size=len(RECORDS))
        await successor.lead()
    await publish(successor, *RECORDS.values())
    await successor.complete()
    await successor.report(a_watcher())
    await successor.verify(RECORDS, size=len(RECORDS))
    listing = await reader.listing()
    assert (facts(dict(listing.adapters)), listing.complete) == (facts(RECORDS), True)


@pytest.mark.parametrize("what", SEEN_BY_ITS_SIZE)
async def test_a_catalog_of_another_size_than_it_says_is_not_complete(
    what: str, publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await ALL[what](raw)
    assert not (await reader.listing()).complete


@pytest.mark.parametrize("what", ALL)
async def test_a_reader_lists_a_damaged_catalog_or_raises_an_error_of_ours(
    what: str, publisher: Publisher, reader: Reader, connection: Connection, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await ALL[what](raw)
    for question in (reader.listing(), Reports(connection).meta(), reader.get("one")):
        with suppress(LoradropError):
            await question


@pytest.mark.parametrize(
    "what", ["the seq is lost", "the seq is no number", "the seq has too many digits", "meta is no hash"]
)
async def test_a_follower_of_a_damaged_catalog_waits_or_lists_again(
    what: str, publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    async with aclosing(reader.follow(await reader.listing())) as batches:
        await ALL[what](raw)
        with pytest.raises((CatalogUnavailable, ResyncNeeded)):
            while True:
                await next_of(batches)


async def test_a_follower_of_a_damaged_listing_lists_again_only_once_there_is_a_new_epoch(
    publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await raw.delete(ADAPTERS)
    listing = await reader.listing()
    async with aclosing(reader.follow(listing)) as batches:
        assert (await next_of(batches)).changes == {}
        assert (await next_of(batches)).changes == {}
        with pytest.raises(LeaseLost):
            await heartbeat(publisher)
        await publisher.lead()
        with pytest.raises(ResyncNeeded):
            while True:
                await next_of(batches)


async def test_who_is_behind_does_not_take_lost_records_for_removed_ones(
    publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    listing = await reader.listing()
    await publish(publisher, *(an_adapter(f"a{number}", revision=revision("b")) for number in range(300)))
    await raw.delete(ADAPTERS)
    async with aclosing(reader.follow(listing)) as batches:
        with pytest.raises(ResyncNeeded, match="lost"):
            await next_of(batches)


async def test_a_stream_that_takes_no_more_entries_is_started_anew(
    publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await raw.xadd(EVENTS, {"hello": "world"}, id=LAST_ID)
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter("four"))
    await publisher.lead()
    await publish(publisher, *RECORDS.values(), an_adapter("four"))
    assert set((await reader.listing()).adapters) == {*RECORDS, "four"}


async def test_nothing_is_damaged_by_what_a_watcher_itself_does(publisher: Publisher, reader: Reader) -> None:
    await publish_all(publisher)
    epoch = publisher.lease.epoch
    long = {"one": an_adapter("one", base_model="b" * 2_000, rank=64)}
    for changed in (long, RECORDS, long):
        await publish(publisher, *changed.values())
        await publisher.report(a_watcher())
        await publisher.verify(changed, size=len(RECORDS))
    await publisher.lead()
    await heartbeat(publisher)
    assert (publisher.lease.epoch, (await reader.listing()).complete) == (epoch, True)


async def test_a_heartbeat_while_the_catalog_becomes_complete_finds_no_damage(publisher: Publisher) -> None:
    epochs = set()
    for _ in range(20):
        epochs.add((await publisher.lead()).epoch)
        await asyncio.gather(publisher.complete(), publisher.report(a_watcher()))
        await publisher.resign()
    assert len(epochs) == 1


async def test_the_largest_seq_that_is_no_damage_is_counted_on(
    publisher: Publisher, reader: Reader, raw: "Redis[str]"
) -> None:
    await publish_all(publisher)
    await raw.hset(META, "seq", 10**13 - 2)
    await publish(publisher, replace(RECORDS["one"], reason=Reason("changed", "since")))
    assert publisher.seq == (await reader.listing()).seq == 10**13 - 1
    await publisher.report(a_watcher())
