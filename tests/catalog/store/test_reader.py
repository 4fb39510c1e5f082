"""Reading the catalog: a listing, one record, and the events as clients are shown them."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import CatalogRefused, CatalogUnavailable, RecordInvalid
from loradrop.catalog.store import Publisher, Reader
from tests.catalog.reading import ADAPTERS, EVENTS, META, publish
from tests.catalog.values import TRUNCATED, an_adapter


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


async def test_events_for_clients_carry_the_id_of_their_entry(
    reader: Reader, publisher: Publisher, raw: "Redis[str]"
) -> None:
    assert await reader.newest_cursor() == "0-0"
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    (first, one), (second, two) = await reader.events_after("0-0")
    assert (one.name, two.name) == ("one", "two")
    assert await reader.newest_cursor() == second
    assert [entry_id for entry_id, _ in await reader.events_after(first)] == [second]
    assert await reader.events_after(second) == []
    await raw.xtrim(EVENTS, maxlen=1, approximate=False)
    assert (await reader.holds(first), await reader.holds(second)) == (False, True)
