"""What becomes of a Redis that is away, frozen, full, locked or none at all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from loradrop.catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable, LoradropError
from loradrop.catalog.store import Connection, Publisher, Reader, Refreshes, Reports, Timeouts
from testkit.servers import ValkeyServer, free_port, valkey
from testkit.waiting import wait_until
from tests.catalog.values import a_worker, an_adapter

pytestmark = pytest.mark.faults


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of this test's own, which has on disk whatever it answered to."""
    with valkey(tmp_path, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def admin(redis_url: str) -> AsyncIterator["Redis[str]"]:
    """A client that puts the shared server back in order."""
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
        await client.config_set("maxmemory", "0")
        await client.config_set("min-replicas-to-write", "0")
        await client.acl_deluser("viewer")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "redis://:secret@127.0.0.1:port/0", "", "localhost:6379"]
)
def test_a_url_that_is_none_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(CatalogRefused, match="looks like redis://") as refused:
        Connection(url)
    assert "secret" not in str(refused.value)


async def test_a_unix_socket_is_a_redis_too(server: ValkeyServer, tmp_path: Path) -> None:
    async with Connection(f"unix://{tmp_path}/nothing.sock") as connection:
        with pytest.raises(CatalogUnavailable):
            await connection.ping()


async def test_where_nothing_listens_the_catalog_is_unavailable() -> None:
    async with Connection(f"redis://127.0.0.1:{free_port()}/0") as connection:
        with pytest.raises(CatalogUnavailable, match="Nothing is lost"):
            await connection.ping()


async def test_a_killed_redis_is_noticed_and_found_again(server: ValkeyServer) -> None:
    async with Connection(server.url) as connection:
        publisher, reader = Publisher(connection, owner="watcher-1"), Reader(connection, block_seconds=0.05)
        await publisher.lead()
        await publisher.publish([an_adapter("one")], catalog_size=1)
        listing = await reader.listing()
        server.kill()
        for refused in (
            publisher.publish([an_adapter("two")], catalog_size=2),
            reader.listing(),
            anext(reader.follow(listing)),
            Reports(connection).workers(),
        ):
            with pytest.raises(CatalogUnavailable):
                await refused
        server.start()

        async def answers() -> bool:
            try:
                await connection.ping()
            except CatalogUnavailable:
                return False
            return True

        await wait_until(answers, timeout=10, description="Redis answers again")
        assert (await publisher.lead()).epoch == listing.epoch
        await publisher.publish([an_adapter("two")], catalog_size=2)
        batch = await anext(reader.follow(listing))
        assert (set(batch.changes), batch.seq) == ({"two"}, 2)


async def test_a_frozen_redis_is_noticed_by_every_kind_of_command(server: ValkeyServer) -> None:
    timeouts = Timeouts(command_seconds=0.4, block_seconds=0.1, margin_seconds=0.4)
    async with Connection(server.url, timeouts=timeouts) as connection:
        publisher, reader = Publisher(connection, owner="watcher-1"), Reader(connection)
        await publisher.lead()
        listing = await reader.listing()
        server.freeze()
        for refused in (
            connection.ping(),
            publisher.publish([an_adapter()], catalog_size=1),
            anext(reader.follow(listing)),
            Refreshes(connection).requests_after("0-0"),
        ):
            with pytest.raises(CatalogUnavailable):
                await refused
        server.thaw()
        await publisher.publish([an_adapter()], catalog_size=1)
        assert len((await reader.listing()).adapters) == 1


async def refusal(connection: Connection) -> LoradropError:
    """Return what publishing raises."""
    with pytest.raises(LoradropError) as refused:
        await Publisher(connection, owner="watcher-1").lead()
    return refused.value


async def test_a_wrong_password_is_denied_with_advice(server: ValkeyServer) -> None:
    async with Redis.from_url(server.url) as client:
        await client.config_set("requirepass", "secret")
    for url in (server.url, f"redis://:wrong@127.0.0.1:{server.port}/0"):
        async with Connection(url) as connection:
            with pytest.raises(CatalogDenied, match="password in --redis-url"):
                await connection.ping()
            assert isinstance(await refusal(connection), CatalogDenied)
    async with Connection(f"redis://:secret@127.0.0.1:{server.port}/0") as connection:
        await connection.ping()


async def test_a_user_who_may_not_write_is_denied(
    connection: Connection, admin: "Redis[str]", redis_url: str
) -> None:
    await Publisher(connection, owner="watcher-0").lead()
    await admin.execute_command(
        "ACL", "SETUSER", "viewer", "on", ">pw", "~*", "+@read", "+@connection", "+@transaction"
    )
    async with Connection(redis_url.replace("://", "://viewer:pw@")) as viewer:
        assert (await Reader(viewer).listing()).adapters == {}
        assert isinstance(await refusal(viewer), CatalogDenied)
        with pytest.raises(CatalogDenied):
            await Reports(viewer).report_worker(a_worker(), {})


async def test_reading_needs_no_right_to_write(
    connection: Connection, admin: "Redis[str]", redis_url: str
) -> None:
    await Reports(connection).report_worker(a_worker(), {})
    await admin.execute_command(
        "ACL", "SETUSER", "viewer", "on", ">pw", "~*", "+@read", "+@connection", "+@transaction"
    )
    async with Connection(redis_url.replace("://", "://viewer:pw@")) as viewer:
        reports = Reports(viewer)
        assert set(await reports.workers()) == {"gpu-1:8000"}
        assert await reports.watcher() is None


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "3")])
async def test_a_redis_that_takes_no_writes_for_now_is_unavailable(
    connection: Connection, admin: "Redis[str]", setting: str, value: str
) -> None:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    await admin.config_set(setting, value)
    assert isinstance(await refusal(connection), CatalogUnavailable)
    with pytest.raises(CatalogUnavailable):
        await publisher.publish([an_adapter()], catalog_size=1)
    with pytest.raises(CatalogUnavailable):
        await Reports(connection).report_worker(a_worker(), {})


async def test_a_key_of_another_type_is_unavailable_until_the_watcher_has_replaced_it(
    connection: Connection, admin: "Redis[str]"
) -> None:
    await admin.set("loradrop:{default}:meta", "not a hash")
    with pytest.raises(CatalogUnavailable, match=r"damaged: .*WRONGTYPE"):
        await Reader(connection).listing()


async def test_a_loop_that_reads_always_ends_when_it_is_cancelled(connection: Connection) -> None:
    """redis-py alone goes on after about one cancellation of twenty, on Python 3.11."""

    async def read_for_ever() -> None:
        while True:
            await Reports(connection).workers()

    for number in range(300):
        task = asyncio.create_task(read_for_ever())
        await asyncio.sleep(number * 1e-5)  # not a wait for a state: the moment of the cancellation
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, f"still running after cancellation {number}"
