"""A publisher that leads, a reader, and the raw Redis behind them."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from loradrop.catalog.store import Connection, Publisher, Reader, Refreshes, Reports


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator["Redis[str]"]:
    """The same Redis without us in between: what `redis-cli` shows."""
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    """A publisher that holds the lease."""
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    return publisher


@pytest.fixture
def reader(connection: Connection) -> Reader:
    """A reader that looks often whether it is in step."""
    return Reader(connection, block_seconds=0.05)


@pytest.fixture
def reports(connection: Connection) -> Reports:
    return Reports(connection)


@pytest.fixture
def refreshes(connection: Connection) -> Refreshes:
    return Refreshes(connection, block_seconds=0.05)
