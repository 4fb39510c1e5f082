"""Following the catalog through everything that can happen to a Redis: nothing is unloaded because of it."""

import pytest
import redis

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.redis_keys import Keys
from loradrop.catalog.store import Connection, Publisher
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from testkit.servers import ValkeyServer
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter, revision
from tests.worker.fleet.followers import Follower, following, publish, withdraw

KEYS = Keys()


async def test_what_was_there_before_and_what_comes_later_is_wanted(
    publisher: Publisher, follower: Follower
) -> None:
    await publish(publisher, "sql")
    await follower.until_names("sql")
    await publish(publisher, "code")
    await follower.until_names("code", "sql")
    await withdraw(publisher, "sql")
    await follower.until_names("code")
    await follower.until_seq(3)
    position = follower.catalog_follower.position
    assert (position.epoch, position.seq, position.stale) == (publisher.lease.epoch, 3, None)
    assert follower.moved.is_set()


async def test_a_redis_without_a_catalog_is_waited_for(connection: Connection, follower: Follower) -> None:
    await follower.until_stale()
    assert follower.catalog_follower.position.epoch is None
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    await publish(publisher, "sql")
    await follower.until_names("sql")
    await follower.until_fresh()


async def test_an_update_brings_the_new_revision_to_a_loaded_name(
    publisher: Publisher, follower: Follower, table: FakeTable
) -> None:
    await publish(publisher, "sql", digit="a")
    await follower.until_names("sql")
    await follower.reconciler.resolve("sql")
    await publish(publisher, "sql", digit="b")
    await wait_until(
        lambda: table.served["sql"].revision == revision("b"), timeout=5, description="the new one is served"
    )


async def test_a_state_alone_moves_the_position_and_wants_nothing_else(
    publisher: Publisher, follower: Follower
) -> None:
    await publish(publisher, "sql")
    changed = an_adapter("sql", revision=revision("a"), state=AdapterState.UNKNOWN)
    await publisher.publish([changed], catalog_size=10)
    await follower.until_seq(2)
    assert follower.names() == ["sql"]


async def test_a_gap_in_the_stream_is_listed_over(
    publisher: Publisher, follower: Follower, redis_url: str
) -> None:
    await publish(publisher, "sql")
    await follower.until_names("sql")
    with redis.Redis.from_url(redis_url) as raw:
        raw.hincrby(KEYS.meta, "seq", 1)  # as if an entry had been trimmed before it was read
    await publish(publisher, "code")
    await follower.until_names("code", "sql")
    await follower.until_seq(3)


async def test_a_record_that_cannot_be_read_leaves_what_is_served_as_it_is(
    publisher: Publisher, follower: Follower, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(publisher, "sql", "code")
    await follower.until_names("code", "sql")
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(KEYS.adapters, "sql", "{ by hand")
        raw.hincrby(KEYS.meta, "seq", 1)
    await wait_until(
        lambda: "not readable, kept as they were names=['sql']" in caplog.text,
        timeout=5,
        description="it was listed again",
    )
    assert caplog.text.count("not readable") == 1
    assert follower.names() == ["code", "sql"]


async def test_an_emptied_redis_unloads_nothing_until_the_new_catalog_is_complete(
    publisher: Publisher, follower: Follower, table: FakeTable, connection: Connection, redis_url: str
) -> None:
    await publish(publisher, "sql", "code", "math")
    await follower.until_names("code", "math", "sql")
    await follower.reconciler.resolve("sql")
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    await follower.until_stale()
    assert follower.names() == ["code", "math", "sql"]

    successor = Publisher(connection, owner="watcher-2")
    epoch = (await successor.lead()).epoch
    await publish(successor, "code", "new")
    await follower.until_names("code", "math", "new", "sql")
    assert set(table.served) == {"sql"}
    assert follower.catalog_follower.position.epoch == epoch

    await successor.complete()
    await follower.until_names("code", "new")
    assert set(table.served) == set()


async def test_a_redis_that_fell_back_takes_nothing_from_what_is_served(
    publisher: Publisher, follower: Follower, table: FakeTable, redis_url: str
) -> None:
    await publish(publisher, "sql", digit="a")
    with redis.Redis.from_url(redis_url) as raw:
        early = raw.hget(KEYS.adapters, "sql")
    await publish(publisher, "code")
    await publish(publisher, "sql", digit="b")
    await follower.until_seq(3)
    for name in follower.names():
        await follower.reconciler.resolve(name)
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(KEYS.adapters, "sql", early)
        raw.hdel(KEYS.adapters, "code")
        raw.hset(KEYS.meta, "seq", 1)
    await follower.until_seq(1)
    assert follower.names() == ["code", "sql"]
    assert {name: handle.revision for name, handle in table.served.items()} == {
        "code": revision("a"),
        "sql": revision("b"),
    }

    await publisher.lead()  # it sees what happened, and begins a new epoch
    await publish(publisher, "sql", digit="b")
    await publisher.complete()
    await follower.until_names("sql")


async def test_a_redis_that_dies_changes_nothing_and_is_caught_up_with_when_it_is_back(
    own_valkey: ValkeyServer, reconciler: Reconciler, table: FakeTable, engine: FakeEngine, store: FakeStore
) -> None:
    async with Connection(own_valkey.url) as connection, following(own_valkey.url, reconciler) as follower:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publish(publisher, "sql")
        await follower.until_names("sql")
        handle = await reconciler.resolve("sql")

        own_valkey.kill()
        await follower.until_stale()
        assert (await reconciler.resolve("sql")) == handle
        assert follower.catalog_follower.position.seq == 1, "what is known stays known"

        own_valkey.start()
        await publisher.lead()
        await publish(publisher, "code")
        await follower.until_names("code", "sql")
        await follower.until_fresh()
        assert set(table.served) == {"sql"}
        assert engine.unloads == []


async def test_a_redis_that_refuses_us_is_stale_with_a_reason(
    own_valkey: ValkeyServer, reconciler: Reconciler
) -> None:
    async with following(own_valkey.url.replace("//", "//unknown:wrong@"), reconciler) as follower:
        await follower.until_stale()
        assert follower.catalog_follower.position.stale is not None
        assert follower.catalog_follower.position.stale.code == "catalog_denied"


async def test_the_same_trouble_is_a_warning_once(
    publisher: Publisher, follower: Follower, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if "not reachable" in record.message]

    caplog.set_level("DEBUG", "loradrop.worker.fleet.catalog_follower")
    await publish(publisher, "sql")
    await follower.until_names("sql")
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    await wait_until(lambda: len(levels()) >= 3, timeout=5, description="it tried several times")
    assert levels()[0] == "WARNING"
    assert set(levels()[1:]) == {"DEBUG"}
