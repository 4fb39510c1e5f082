"""A real Redis Cluster: three primaries, so that two can agree that one is gone, and a replica."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from loradrop.catalog.redis_keys import Keys
from testkit.servers import ValkeyServer, free_port, valkey
from testkit.waiting import wait_until_sync

SLOT = key_slot(Keys().meta.encode())
_SLOTS = 16_384
_PRIMARIES = 3
_PATIENCE_SECONDS = 30
_OPTIONS = (
    "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0",
    "--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no",
)  # fmt: skip


class Node:
    """One node, and what is asked of it alone."""

    def __init__(self, server: ValkeyServer, bus: int) -> None:
        self.server = server
        self.port = server.port
        self.bus = bus
        self.client = redis.Redis(port=server.port, decode_responses=True)

    def cluster(self, *command: str | int) -> Any:
        """Return the answer to a CLUSTER command, as the node gives it."""
        return self.client.execute_command("CLUSTER", *command)

    def id(self) -> str:
        return str(self.cluster("MYID"))

    def knows(self, *facts: str) -> bool:
        """Return whether CLUSTER INFO says all of `facts` here."""
        return set(facts) <= set(self.cluster("INFO").split())

    def is_in_step(self) -> bool:
        return self.client.info("replication").get("master_link_status") == "up"


class Cluster:
    """The nodes. The first is never the pool's: the slot is in the middle third, the replica the second's."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def url(self) -> str:
        return f"redis+cluster://{self.hosts}"

    def holder(self) -> Node:
        """Return the primary that holds the pool's slot, as the first node sees it."""
        return self._at(next(primary for first, last, primary in self._shards() if first <= SLOT <= last))

    def replica(self) -> Node:
        """Return the node that can take over."""
        primaries = {primary for _, _, primary in self._shards()}
        return next(node for node in self.nodes if node.port not in primaries)

    def join(self) -> None:
        """Make one cluster of nodes that know nothing of each other."""
        first, *others = self.nodes
        for number, node in enumerate(self.nodes[:_PRIMARIES]):
            node.cluster("SET-CONFIG-EPOCH", number + 1)
            start, end = (_SLOTS * at // _PRIMARIES for at in (number, number + 1))
            node.cluster("ADDSLOTSRANGE", start, end - 1)
        for node in others:
            first.cluster("MEET", "127.0.0.1", node.port, node.bus)
        self._until_all_know(f"cluster_known_nodes:{len(self.nodes)}")
        self.nodes[-1].cluster("REPLICATE", self.holder().id())

    def until_whole(self) -> None:
        """Wait until every node is well, and the replica could take over."""
        self._until_all_know("cluster_state:ok", "cluster_slots_ok:16384", f"cluster_size:{_PRIMARIES}")
        self._until(lambda: self.replica().is_in_step(), "the replica is in step")

    def move_slot(self, target: Node) -> None:
        """Move the pool's slot and its keys to `target`."""
        with self.moving_slot(target):
            pass

    @contextmanager
    def moving_slot(self, target: Node) -> Iterator[None]:
        """Do so, with a block while one of the keys, if there are any, is there and the others are not."""
        source = self.holder()
        target.cluster("SETSLOT", SLOT, "IMPORTING", source.id())
        source.cluster("SETSLOT", SLOT, "MIGRATING", target.id())
        keys = sorted(source.cluster("GETKEYSINSLOT", SLOT, 100))
        self._migrate(source, target, *keys[:1])
        yield
        self._migrate(source, target, *keys[1:])
        for node in (target, source):
            node.cluster("SETSLOT", SLOT, "NODE", target.id())

    def _migrate(self, source: Node, target: Node, *keys: str) -> None:
        if keys:
            source.client.migrate("127.0.0.1", target.port, keys, destination_db=0, timeout=5_000)

    def _until_all_know(self, *facts: str) -> None:
        self._until(lambda: all(node.knows(*facts) for node in self.nodes), f"all nodes say {facts}")

    def _until(self, predicate: Callable[[], bool], description: str) -> None:
        wait_until_sync(predicate, timeout=_PATIENCE_SECONDS, description=description)

    def _shards(self) -> list[tuple[int, int, int]]:
        """Return (first slot, last slot, port of the primary), as the first node sees them."""
        return [(first, last, primary[1]) for first, last, primary, *_ in self.nodes[0].cluster("SLOTS")]

    def _at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)


@contextmanager
def running_cluster(directory: Path, *options: str) -> Iterator[Cluster]:
    """Run a cluster for the length of the block."""
    with ExitStack() as stack:
        nodes = []
        for number in range(_PRIMARIES + 1):
            own, bus = directory / f"node{number}", free_port()
            own.mkdir()
            server = stack.enter_context(valkey(own, *_OPTIONS, "--cluster-port", str(bus), *options))
            nodes.append(Node(server, bus))
            stack.callback(nodes[-1].client.close)
        cluster = Cluster(nodes)
        cluster.join()
        yield cluster
