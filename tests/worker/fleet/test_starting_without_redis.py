"""A worker that starts while Redis is away offers what it served last, until the catalog is known."""

import pytest

from loradrop.catalog.backoff import Backoff
from loradrop.catalog.store import Connection, Publisher
from loradrop.worker.serving.reconciler import Reconciler
from testkit.servers import ValkeyServer
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter
from tests.worker.fleet.followers import following, publish

SERVED_LAST = {"sql": an_adapter("sql")}


async def test_what_was_served_last_is_offered_until_the_catalog_says_what_is_there(
    own_valkey: ValkeyServer, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "loradrop.worker.fleet.catalog_follower")
    own_valkey.kill()
    async with following(own_valkey.url, reconciler, warm_start=SERVED_LAST) as follower:
        await follower.until_stale()
        assert follower.moved.is_set()
        assert follower.names() == ["sql"]
        assert follower.catalog_follower.position.epoch is None
        assert "not reachable" not in caplog.text, "where nothing is followed yet, that is no warning"

        own_valkey.start()
        async with Connection(own_valkey.url) as connection:
            publisher = Publisher(connection, owner="watcher-1")
            await publisher.lead()
            await publish(publisher, "code")
            await publisher.complete()
        await follower.until_names("code")
        await follower.until_fresh()
        assert "followed again" not in caplog.text

        own_valkey.kill()
        await follower.until_stale()
        assert caplog.text.count("not reachable") == 1
        assert follower.names() == ["code"]

        own_valkey.start()
        await follower.until_fresh()
        assert caplog.text.count("followed again") == 1


async def test_the_pauses_between_tries_begin_again_once_the_catalog_is_followed(
    redis_url: str, connection: Connection, reconciler: Reconciler
) -> None:
    backoff = Backoff(0.01, 60.0)
    async with following(redis_url, reconciler, backoff=backoff) as follower:
        for _ in range(4):
            follower.moved.clear()
            await wait_until(follower.moved.is_set, timeout=10, description="the catalog was asked for")
        assert backoff.pause_seconds() > 0.01, "the pauses have grown"
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await follower.until_fresh()
        assert backoff.pause_seconds() == 0.01
