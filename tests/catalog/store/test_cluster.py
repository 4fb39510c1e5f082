"""Redis Cluster: the pool's node is found, and found again, whatever becomes of it."""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from loradrop.catalog.adapter import Revision
from loradrop.catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable
from loradrop.catalog.store import Connection, Reader, Timeouts
from testkit.servers import free_port
from testkit.waiting import wait_until
from tests.catalog.clusters import Cluster, Node, running_cluster
from tests.catalog.round_trip import publish_and_read
from tests.catalog.tls import certificate, tls_in_front_of
from tests.faults.followers import Fleet, following
from tests.faults.table import Row
from tests.faults.watchers import History, drop, watcher_process

pytestmark = pytest.mark.faults

USERS = Path(__file__).parents[3] / "docker" / "users.acl"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """A cluster without keys, whose holder of the pool has a replica."""
    nodes.until_whole()
    nodes.holder().client.flushall()
    return nodes


async def test_any_nodes_will_do_as_seeds(cluster: Cluster) -> None:
    await publish_and_read(cluster.url)
    await publish_and_read(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}/0")
    await publish_and_read(f"redis+cluster://127.0.0.1:{free_port()},{cluster.hosts}")


async def test_a_node_that_hangs_is_not_waited_for(cluster: Cluster) -> None:
    two_seconds = Timeouts(command_seconds=2.0)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        await publish_and_read(
            f"redis+cluster://127.0.0.1:{port},127.0.0.1:{cluster.nodes[0].port}", timeouts=two_seconds
        )
        async with Connection(f"redis+cluster://127.0.0.1:{port}", timeouts=two_seconds) as connection:
            with pytest.raises(CatalogUnavailable, match=f"Timeout asking the cluster, at last .*{port}"):
                await connection.ping()


async def test_the_url_of_another_node_alone_is_answered_with_the_clusters(cluster: Cluster) -> None:
    async with Connection(f"redis://127.0.0.1:{cluster.nodes[0].port}/0") as connection:
        with pytest.raises(CatalogRefused, match=r"holds this pool: .*Give .* redis\+cluster://"):
            await Reader(connection).listing()


async def test_users_need_no_permission_beside_those_of_their_role(cluster: Cluster) -> None:
    rules = USERS.read_text().replace(" on resetpass ", " on resetpass >pw ").splitlines()
    for node in cluster.nodes:
        for rule in rules[1:]:
            node.client.execute_command("ACL", "SETUSER", *_acl_words(rule))
    await publish_and_read(f"redis+cluster://loradrop-watcher:pw@{cluster.hosts}")
    for role in ("worker", "api"):
        async with Connection(f"redis+cluster://loradrop-{role}:pw@{cluster.hosts}") as connection:
            assert set((await Reader(connection).listing()).adapters) == {"one", "two"}
    async with Connection(f"redis+cluster://loradrop-api:secret@{cluster.hosts}") as connection:
        with pytest.raises(CatalogDenied, match="user and password") as denied:
            await connection.ping()
    assert "secret" not in str(denied.value)


def _acl_words(rule: str) -> list[str]:
    """Split a line of a users file: what is between parentheses is one word."""
    return re.findall(r"\([^)]*\)|\S+", rule.removeprefix("user "))


async def test_with_tls_nodes_are_spoken_to_in_no_other_way(cluster: Cluster, tmp_path: Path) -> None:
    """The holder, behind a proxy, serves; the one that another names has no proxy, and is not understood."""
    one_second = Timeouts(command_seconds=1.0)
    signed = certificate(tmp_path, host="127.0.0.1")
    async with (
        tls_in_front_of(cluster.holder().port, signed) as holder,
        tls_in_front_of(cluster.nodes[0].port, signed) as other,
    ):
        await publish_and_read(f"rediss+cluster://127.0.0.1:{holder}?ssl_ca_certs={signed}")
        url = f"rediss+cluster://127.0.0.1:{other}?ssl_ca_certs={signed}"
        async with Connection(url, timeouts=one_second) as connection:
            with pytest.raises(CatalogUnavailable, match=f"127.0.0.1:{cluster.holder().port}"):
                await connection.ping()
        async with Connection(f"rediss+cluster://127.0.0.1:{other}") as trusting_nobody:
            with pytest.raises(CatalogUnavailable, match="ssl_ca_certs=FILE"):
                await trusting_nobody.ping()


async def test_where_no_node_listens_the_catalog_is_unavailable() -> None:
    async with Connection(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}") as connection:
        with pytest.raises(CatalogUnavailable, match="Nothing is lost"):
            await connection.ping()


@dataclass(frozen=True, slots=True)
class Work:
    """What goes on, and how it is seen to have gone on."""

    prefix: Path
    history: History
    fleet: Fleet
    wanted: dict[str, Revision]

    async def goes_on(self) -> None:
        """Drop one more adapter; nothing is lost, nothing is unloaded, and no reader lists again."""
        number = len(self.wanted)
        self.wanted.update(drop(self.history, self.prefix, f"later{number}", seed=7 + number))
        await self.fleet.until_converged(self.history, self.wanted)

        async def is_read() -> bool:
            with suppress(CatalogUnavailable):  # an idle connection learns it when it is used
                return bool(await self.history.catalog.events())
            return False

        await wait_until(is_read, timeout=30, description="the stream can be read again")
        row = Row("a cluster")
        await self.fleet.check(row, self.history, self.wanted)
        assert set(row.faults().values()) == {0}, row
        assert [follower.reader.listings for follower in self.fleet.followers] == [1, 1]


@asynccontextmanager
async def at_work(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Work]:
    """A watcher with a prefix and two workers, all by the URL of the cluster, which have served adapters."""
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    async with Connection(cluster.url) as connection, watcher_process(connection, prefix) as (_, history):
        wanted = drop(history, prefix, "sql", "code")
        await history.until_revisions(wanted)
        await history.until_complete()
        async with following(cluster.url, tmp_path) as fleet:
            await fleet.until_listed(wanted)
            await fleet.serve(wanted)
            yield Work(prefix, history, fleet, wanted)


async def until_it_is(cluster: Cluster, holder: Node) -> None:
    await wait_until(lambda: cluster.holder() is holder, timeout=30, description="the replica has taken over")


async def test_a_planned_failover_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    async with at_work(cluster, tmp_path) as work:
        replica = cluster.replica()
        replica.cluster("FAILOVER")
        await until_it_is(cluster, replica)
        await work.goes_on()


async def test_a_killed_primary_is_followed_by_its_replica(cluster: Cluster, tmp_path: Path) -> None:
    async with at_work(cluster, tmp_path) as work:
        holder, replica = cluster.holder(), cluster.replica()
        assert holder.client.wait(1, 5_000) == 1
        holder.server.kill()
        try:
            await work.fleet.until_stale()
            await work.fleet.serve(work.wanted)  # requests are answered as before
            await until_it_is(cluster, replica)
            await work.goes_on()
        finally:
            holder.server.start()


async def test_a_slot_that_moves_is_followed_there_and_back(cluster: Cluster, tmp_path: Path) -> None:
    async with at_work(cluster, tmp_path) as work:
        holder, other = cluster.holder(), cluster.nodes[0]
        for target in (other, holder):
            cluster.move_slot(target)
            await work.goes_on()


async def test_while_half_a_slot_has_moved_the_catalog_is_unavailable(cluster: Cluster) -> None:
    await publish_and_read(cluster.url)
    holder, other = cluster.holder(), cluster.nodes[0]
    async with Connection(cluster.url) as connection:
        reader = Reader(connection)
        listing = await reader.listing()
        with cluster.moving_slot(other):
            with pytest.raises(CatalogUnavailable):
                await reader.listing()
            async with Connection(cluster.url) as another:
                with pytest.raises(CatalogUnavailable):
                    await Reader(another).listing()
        assert await reader.listing() == listing
    cluster.move_slot(holder)


async def test_a_pool_without_keys_in_a_slot_on_its_way_is_unavailable_too(cluster: Cluster) -> None:
    holder = cluster.holder()
    async with Connection(cluster.url) as connection:
        away = pytest.raises(CatalogUnavailable, match="does not serve this pool now: AskError")
        with cluster.moving_slot(cluster.nodes[0]), away:
            await connection.ping()
        await connection.ping()
    cluster.move_slot(holder)
