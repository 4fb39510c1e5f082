"""Who stands by knows what the leader has published: should Redis lose it, nothing is taken for new."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loradrop.catalog.errors import CatalogUnavailable, LeaseHeld
from loradrop.catalog.store import Connection, Publisher, Withdrawal
from loradrop.watcher.publish.catalog_mirror import CatalogMirror
from testkit.servers import valkey
from testkit.waiting import wait_until
from tests.catalog.values import GONE, an_adapter

ONE, TWO = an_adapter("one"), an_adapter("two")


@pytest.fixture
async def leader(connection: Connection) -> AsyncIterator[Publisher]:
    """A watcher on another host, whose end cannot be seen from here."""
    publisher = Publisher(connection, owner="elsewhere:1:1")
    await publisher.lead()
    await publisher.publish([ONE], catalog_size=1)
    await publisher.complete()
    yield publisher


@pytest.fixture
async def standby(connection: Connection, leader: Publisher) -> CatalogMirror:
    mirror = CatalogMirror(connection, owner="here:2:2")
    with pytest.raises(LeaseHeld):
        await mirror.lead()
    await mirror.stand_by(0.1)
    return mirror


async def test_what_the_leader_publishes_is_followed(standby: CatalogMirror, leader: Publisher) -> None:
    assert standby.records.keys() == {"one"}
    await leader.publish([TWO, Withdrawal("one", GONE)], catalog_size=2)
    await standby.stand_by(0.1)
    assert standby.records.keys() == {"two"}


async def test_what_redis_lost_is_remembered_by_who_leads_next(
    standby: CatalogMirror, connection: Connection
) -> None:
    await connection.commands.flushall()
    await standby.lead()
    assert standby.records == {}
    assert standby.remembered["one"].revision == ONE.revision


async def test_what_redis_lost_is_remembered_until_another_leader_has_published_all(
    standby: CatalogMirror, leader: Publisher, connection: Connection
) -> None:
    await connection.commands.flushall()
    with pytest.raises(CatalogUnavailable):
        while True:
            await standby.stand_by(0.1)
    await leader.lead()
    await leader.publish([TWO], catalog_size=1)
    await standby.stand_by(0.1)
    assert standby.remembered.keys() == {"one", "two"}
    await leader.complete()
    await standby.stand_by(2)
    assert standby.remembered.keys() == {"two"}


async def test_what_redis_lost_and_the_leader_withdrew_since_is_not_remembered(
    standby: CatalogMirror, leader: Publisher, connection: Connection
) -> None:
    await connection.commands.flushall()
    await leader.lead()
    await leader.publish([TWO], catalog_size=1)
    await standby.stand_by(0.1)
    assert standby.remembered.keys() == {"one", "two"}
    await leader.publish([ONE], catalog_size=2)
    await leader.publish([Withdrawal("one", GONE)], catalog_size=1)
    await standby.stand_by(0.1)
    assert standby.remembered.keys() == {"two"}


async def test_one_that_stands_by_follows_again_once_redis_is_back(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with Connection(server.url) as own:
            leader, standby = Publisher(own, owner="elsewhere:1:1"), CatalogMirror(own, owner="here:2:2")
            await leader.lead()
            await leader.publish([ONE], catalog_size=1)
            await leader.complete()
            await standby.stand_by(0.1)
            server.kill()
            with pytest.raises(CatalogUnavailable):
                await standby.stand_by(60)
            assert standby.records.keys() == {"one"}
            server.start()
            await leader.lead()
            await leader.publish([TWO], catalog_size=2)
            await wait_until(
                lambda: _has_followed(standby, "two"), timeout=20, description="it follows the leader"
            )


async def _has_followed(standby: CatalogMirror, name: str) -> bool:
    await standby.stand_by(0.1)
    return name in standby.records
