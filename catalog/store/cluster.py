"""Connections that find the node of a Redis Cluster that holds a pool, and find it again after a failover.

All keys of a pool share a hash slot, so one node holds them, and a client of one server will do (redis-py's
own for clusters takes no script into a pipeline). Whenever one of its connections is made, nodes are asked
for a key of the pool; a node that does not hold it names the one that does. No other permission is needed.

After a failover, or once the slot has moved, the answers to commands say so. The connection then ends as if
its server had gone, and asks again. A slot on its way to another node is a Redis that is away: `ASK` is not
followed, since a script needs all of its keys in one place.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection

Address = tuple[str, int]

_NOT_HERE = (exceptions.AskError, exceptions.ClusterDownError)
"""The key is elsewhere, on its way there (MovedError is an AskError), or nowhere."""


@dataclass(slots=True)
class Cluster:
    """The nodes to ask for `key`, and the one that held it last."""

    seeds: list[Address]
    key: str
    holder: Address | None = None

    def nodes(self) -> list[Address]:
        """Return the nodes to ask, in that order: the last holder, then the seeds at random."""
        known = [] if self.holder is None else [self.holder]
        return known + random.sample(self.seeds, len(self.seeds))


class ClusterConnection(Connection):
    """A connection to the node that holds the key of `cluster`."""

    def __init__(self, *, cluster: Cluster, socket_connect_timeout: float, **options: Any) -> None:
        """Connect later, within `socket_connect_timeout` for all that are asked; `options` are redis-py's."""
        self._cluster = cluster
        self._timeout_seconds = socket_connect_timeout
        super().__init__(socket_connect_timeout=socket_connect_timeout, **options)

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect where there is no connection: redis-py calls this ahead of any command."""
        if self.is_connected:
            return
        nodes, self._cluster.holder = self._cluster.nodes(), None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._cluster.holder = await self._find(nodes, *args, **options)
        except TimeoutError as error:
            raise exceptions.TimeoutError(
                f"Timeout asking the cluster, at last {self.host}:{self.port}"
            ) from error

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer; one that says that the key is not served here is a lost connection."""
        try:
            return await super().read_response(*args, **options)
        except _NOT_HERE as error:
            await self.disconnect(nowait=True)
            raise self._lost(error) from error

    async def _find(self, nodes: list[Address], *args: Any, **options: Any) -> Address:
        asked: set[Address] = set()
        failure: Exception = exceptions.ConnectionError("No node of the cluster says that it holds this pool")
        while nodes:
            node = nodes.pop(0)
            if node in asked:
                continue
            asked.add(node)
            self.host, self.port = node
            try:
                # One that hangs leaves time for another.
                async with asyncio.timeout(self._timeout_seconds / 2):
                    await super().connect_check_health(*args, **options)
                    await self.send_command("HGET", self._cluster.key, "epoch", check_health=False)
                    await super().read_response()
            except exceptions.MovedError as moved:
                nodes.insert(0, (moved.host or self.host, moved.port))
            except _NOT_HERE as error:
                failure = self._lost(error)
            except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError) as error:
                failure = error
            else:
                return node
            await self.disconnect(nowait=True)
        raise failure

    def _lost(self, error: Exception) -> exceptions.ConnectionError:
        return exceptions.ConnectionError(
            f"{self.host}:{self.port} does not serve this pool now: {type(error).__name__} {error}"
        )


class TLSClusterConnection(ClusterConnection, SSLConnection):
    """The same over TLS."""
