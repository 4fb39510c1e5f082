"""A Redis that is gone is an error of ours, whatever it is asked."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from loradrop.catalog.errors import CatalogUnavailable, LeaseLost
from loradrop.catalog.store import Connection, Publisher, Reader, Withdrawal
from testkit.servers import valkey
from tests.catalog.reading import publish
from tests.catalog.values import GONE, a_watcher, an_adapter


async def test_whatever_is_asked_of_a_redis_that_is_gone_the_catalog_is_unavailable(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with Connection(server.url) as connection:
            publisher, reader = Publisher(connection, owner="watcher-1"), Reader(connection)
            one, two = an_adapter("one"), an_adapter("two")
            await publisher.lead()
            await publish(publisher, one)
            listing = await reader.listing()
            server.kill()
            questions: dict[str, Callable[[], Awaitable[object]]] = {
                "lead": publisher.lead,
                "publish one": lambda: publish(publisher, two),
                "publish several": lambda: publish(publisher, two, Withdrawal("one", GONE)),
                "complete": publisher.complete,
                "expect a root": lambda: publisher.expect_root("device 1"),
                "report": lambda: publisher.report(a_watcher()),
                "verify": lambda: publisher.verify({"one": one}, size=1),
                "list": reader.listing,
                "get": lambda: reader.get("one"),
                "follow": lambda: anext(reader.follow(listing)),
                "events": lambda: reader.events_after("0-0"),
                "newest": reader.newest_cursor,
                "holds": lambda: reader.holds(listing.cursor),
            }
            for name, question in questions.items():
                with pytest.raises(CatalogUnavailable):
                    pytest.fail(f"{name} returned {await question()}")


async def test_a_redis_that_a_script_keeps_busy_is_away_and_not_refused_for_good(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with Connection(server.url) as connection, Connection(server.url) as other:
            await connection.commands.config_set("busy-reply-threshold", 1)
            script = asyncio.create_task(other.commands.eval("while true do end", 0))
            with pytest.raises(CatalogUnavailable, match="BUSY"):
                while True:
                    await connection.ping()
            await connection.commands.script_kill()
            with pytest.raises(ResponseError):
                await script
            await connection.ping()


async def test_a_lease_is_given_up_even_where_redis_cannot_be_told(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with Connection(server.url) as connection:
            publisher = Publisher(connection, owner="watcher-1")
            await publisher.lead()
            server.kill()
            with pytest.raises(CatalogUnavailable):
                await publisher.resign()
            with pytest.raises(LeaseLost):
                await publish(publisher, an_adapter())
