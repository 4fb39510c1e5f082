"""The event stream: continues where a client was, and says so where it cannot."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from sse_starlette import ServerSentEvent

from loradrop.api.events import EventFeed, Start
from loradrop.api.problems import InvalidCursor, TooManyStreams
from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection, Publisher, Reader, Withdrawal
from testkit.servers import ValkeyServer, valkey
from testkit.waiting import wait_until
from tests.catalog.values import GONE, TRUNCATED, an_adapter, revision

EVENTS = "loradrop:{default}:events"


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    return publisher


@pytest.fixture
def feed(connection: Connection) -> EventFeed:
    return EventFeed(Reader(connection), max_streams=2, stopping=asyncio.Event())


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> None:
    await publisher.publish(changes, catalog_size=len(changes))


async def take(feed: EventFeed, count: int, last_event_id: str | None = None) -> list[ServerSentEvent]:
    """Return the next `count` events."""
    async with asyncio.timeout(10), aclosing(feed.stream(await feed.start(last_event_id))) as stream:
        return [await anext(stream) for _ in range(count)]


async def ids(connection: Connection) -> list[str]:
    return [entry_id for entry_id, _ in await connection.commands.xrange(EVENTS)]


async def test_an_event_carries_its_id_its_type_and_all_that_is_known(
    feed: EventFeed, publisher: Publisher, connection: Connection
) -> None:
    await publish(publisher, an_adapter("good", state=AdapterState.REJECTED, reason=TRUNCATED))
    [event] = await take(feed, 1, "0")
    assert (event.id, event.event) == ((await ids(connection))[0], "added")
    assert json.loads(event.data) == {
        "epoch": publisher.lease.epoch,
        "seq": 1,
        "type": "added",
        "name": "good",
        "revision": revision("a"),
        "state": "rejected",
        "reason": {"code": TRUNCATED.code, "message": TRUNCATED.message},
        "at": "2026-11-23T12:00:00Z",
    }


async def test_without_a_last_event_id_it_begins_with_what_comes_next(
    feed: EventFeed, publisher: Publisher
) -> None:
    await publish(publisher, an_adapter("before"))
    start = await feed.start(None)
    await publish(publisher, an_adapter("after"))
    async with aclosing(feed.stream(start)) as stream:
        assert json.loads((await anext(stream)).data)["name"] == "after"


async def test_a_client_that_comes_back_misses_nothing(
    feed: EventFeed, publisher: Publisher, connection: Connection
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"), Withdrawal("one", GONE))
    first, *_ = await ids(connection)
    two, deleted = await take(feed, 2, first)
    assert (two.event, deleted.event) == ("added", "deleted")
    assert json.loads(deleted.data)["name"] == "one"


async def test_a_client_whose_place_was_trimmed_away_is_told_to_list_again(
    feed: EventFeed, publisher: Publisher, connection: Connection
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"), an_adapter("three"))
    first, _, last = await ids(connection)
    await connection.commands.xtrim(EVENTS, maxlen=1, approximate=False)
    [resync] = await take(feed, 1, first)
    assert (resync.event, resync.id) == ("resync", last)
    assert "/v1/lora_adapters" in json.loads(resync.data)["reason"]["message"]


async def test_after_a_resync_it_goes_on(feed: EventFeed, publisher: Publisher) -> None:
    async with aclosing(feed.stream(await feed.start("1-1"))) as stream:
        assert (await anext(stream)).event == "resync"
        await publish(publisher, an_adapter("next"))
        assert (await anext(stream)).event == "added"


@pytest.mark.parametrize("redis_loses", ["entries in between", "everything"])
async def test_what_is_lost_while_a_client_follows_is_a_resync(
    feed: EventFeed, publisher: Publisher, connection: Connection, redis_loses: str
) -> None:
    await publish(publisher, an_adapter("one"))
    async with aclosing(feed.stream(await feed.start("0"))) as stream:
        assert (await anext(stream)).event == "added"
        if redis_loses == "everything":
            await connection.commands.flushall()
            await publisher.lead()
        await publish(publisher, an_adapter("two"), an_adapter("three"))
        await connection.commands.xtrim(EVENTS, maxlen=1, approximate=False)
        resync, added = await anext(stream), await anext(stream)
    assert (resync.event, added.event) == ("resync", "added")
    assert json.loads(added.data)["name"] == "three"


async def test_an_entry_that_is_not_ours_is_a_resync(
    feed: EventFeed, publisher: Publisher, connection: Connection
) -> None:
    entry_id = await connection.commands.xadd(EVENTS, {"hello": "world"})
    [resync] = await take(feed, 1, "0-0")
    assert (resync.event, resync.id) == ("resync", entry_id)


async def test_a_stream_ends_as_soon_as_the_process_is_asked_to_stop(
    connection: Connection, publisher: Publisher
) -> None:
    stopping = asyncio.Event()
    feed = EventFeed(Reader(connection), max_streams=1, stopping=stopping)
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    async with asyncio.timeout(3):
        assert [event async for event in feed.stream(await feed.start(None))] == []
    assert feed.open_streams == 0


@pytest.mark.parametrize("last_event_id", ["", "abc", "1-2-3", "-", "$", "1 2", "1-18446744073709551616"])
async def test_an_id_that_is_not_of_this_stream_is_refused(feed: EventFeed, last_event_id: str) -> None:
    with pytest.raises(InvalidCursor):
        await feed.start(last_event_id)


async def test_no_more_clients_than_allowed_follow_at_once(feed: EventFeed, publisher: Publisher) -> None:
    await publish(publisher, an_adapter())
    starting = await asyncio.gather(*(feed.start("0") for _ in range(9)), return_exceptions=True)
    starts = [start for start in starting if isinstance(start, Start)]
    assert [type(refused) for refused in starting if not isinstance(refused, Start)] == [TooManyStreams] * 7
    assert (len(starts), feed.open_streams) == (2, 2)
    async with aclosing(feed.stream(starts[0])) as stream:
        await anext(stream)
        with pytest.raises(TooManyStreams):
            await feed.start("0")
    assert feed.open_streams == 1
    feed.leave(starts[1])  # one that never began
    assert feed.open_streams == 0


async def test_a_start_that_fails_takes_no_place(feed: EventFeed, publisher: Publisher) -> None:
    for _ in range(3):
        with pytest.raises(InvalidCursor):
            await feed.start("mine")
    assert feed.open_streams == 0


async def test_a_stream_ends_before_the_next_event_once_its_key_is_no_longer_in_force(
    feed: EventFeed, publisher: Publisher
) -> None:
    is_in_force = True
    stream = feed.stream(await feed.start("0"), is_admitted=lambda: is_in_force)
    async with aclosing(stream):
        await publish(publisher, an_adapter("one"))
        assert (await anext(stream)).event == "added"
        is_in_force = False
        await publish(publisher, an_adapter("two"))
        assert [event async for event in stream] == []
    assert feed.open_streams == 0


@pytest.fixture
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ValkeyServer]:
    """A Valkey that may be killed."""
    with valkey(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.mark.faults
async def test_while_redis_is_away_a_stream_stays_open_and_then_continues(
    own_server: ValkeyServer,
) -> None:
    async with Connection(own_server.url) as connection, aclosing(_stream(connection)) as stream:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publish(publisher, an_adapter("before"))
        assert (await anext(stream)).event == "added"
        own_server.kill()
        assert (await anext(stream)).comment == "Redis is away, waiting for it"
        own_server.start()
        await _until_answering(connection)
        await publish(publisher, an_adapter("after"))
        async with asyncio.timeout(10):
            received = [event async for event in _until_added(stream)]
    assert json.loads(received[-1].data)["name"] == "after"
    assert not any(event.event == "resync" for event in received)


async def _stream(connection: Connection) -> AsyncIterator[ServerSentEvent]:
    feed = EventFeed(Reader(connection), max_streams=1, stopping=asyncio.Event(), pauses=(0.02, 0.1))
    async with aclosing(feed.stream(await feed.start("0"))) as stream:
        async for event in stream:
            yield event


async def _until_added(stream: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    async for event in stream:
        yield event
        if event.event:
            return


async def _until_answering(connection: Connection) -> None:
    async def answers() -> bool:
        try:
            await connection.ping()
        except CatalogUnavailable:
            return False
        return True

    await wait_until(answers, timeout=10, description="Redis answers again")


async def test_ids_of_redis_are_what_clients_send_back(redis_url: str, publisher: Publisher) -> None:
    """What `redis-cli XRANGE` shows and what a browser sends as Last-Event-ID are the same."""
    await publish(publisher, an_adapter())
    async with Redis.from_url(redis_url, decode_responses=True) as raw, Connection(redis_url) as connection:
        feed = EventFeed(Reader(connection), max_streams=1, stopping=asyncio.Event())
        [(entry_id, _)] = await raw.xrange(EVENTS)
        assert [event.id for event in await take(feed, 1, "0-0")] == [entry_id]
