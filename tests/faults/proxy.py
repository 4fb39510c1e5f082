"""What lies between a Redis and its users: it leads elsewhere, falls silent, or loses what it carries."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

_CHUNK_BYTES = 1 << 16


class Way(Enum):
    """Which way bytes are going."""

    REQUEST = auto()
    REPLY = auto()


Loses = Callable[[Way, bytes], bool]


class Proxy:
    """A TCP proxy whose `port` leads to `upstream_port`.

    What `loses` is asked about and says yes to is swallowed, and its connection reset, as by a middlebox
    that drops it.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.lost = 0
        self.loses: Loses = lambda _way, _chunk: False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Reset every connection."""
        for connection in self._connections:
            connection.cancel()

    def stall(self) -> None:
        """Carry nothing, and close no connection, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):  # cut: the client learns it from the reset
                await self._carry(client, to_client)
        finally:
            self._connections.discard(task)
            to_client.transport.abort()

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        ways = [
            asyncio.create_task(self._pump(Way.REQUEST, client, to_server)),
            asyncio.create_task(self._pump(Way.REPLY, server, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            await self._flowing.wait()
            if self.loses(way, chunk):
                self.lost += 1
                return
            target.write(chunk)
            await target.drain()


@asynccontextmanager
async def proxy_to(upstream_port: int) -> AsyncIterator[Proxy]:
    """Run a proxy for the length of the block."""
    proxy = Proxy(upstream_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        while proxy._connections:
            proxy.cut()
            await asyncio.wait(list(proxy._connections))


def losing_replies(share: float, *, seed: int) -> Loses:
    """Lose that share of the replies, the same ones for the same seed and order."""
    dice = random.Random(seed)
    return lambda way, _chunk: way is Way.REPLY and dice.random() < share
