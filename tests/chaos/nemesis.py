"""What goes wrong, chosen by a seed: one fault at a time, each ended once those it concerns have noticed."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count

from testkit.servers import ValkeyServer
from tests.chaos.api_client import ApiClient
from tests.chaos.processes import Api, Watchers
from tests.chaos.record import Record
from tests.chaos.workers import Workers
from tests.chaos.writer import Writer
from tests.faults.proxy import Proxy, losing_replies

_SHARE_LOST = 0.1
_LONGEST_SECONDS = 4.0
_PAUSE_SECONDS = 0.3

Fault = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Stage:
    """What can be broken, and who is to notice."""

    server: ValkeyServer
    proxy: Proxy
    watchers: Watchers
    api: Api
    writer: Writer
    workers: Workers
    client: ApiClient


class Nemesis:
    """Breaks one thing after another. Keeps true: between two faults nothing is broken."""

    def __init__(self, stage: Stage, record: Record, *, seed: int) -> None:
        self._stage, self._record, self._seed = stage, record, seed
        self._dice = random.Random(f"faults {seed}")
        self._struck = 0.0
        self._faults: list[Fault] = [
            self.watcher_killed,
            self.watcher_paused,
            self.api_killed,
            self.redis_killed,
            self.redis_emptied,
            self.redis_frozen,
            self.connections_reset,
            self.replies_lost,
            self.network_stalled,
            self.prefix_gone,
            self.prefix_emptied,
        ]

    async def run(self, *, seconds: float, every_seconds: float) -> None:
        """Let one fault after another begin, last, and end.

        From start to start it takes `every_seconds` on average: a long one makes the next ones sooner.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        for number in count():
            await asyncio.sleep(max(_PAUSE_SECONDS, begun + number * every_seconds - clock()))
            if clock() - begun >= seconds:
                return
            await self._strike()

    async def _strike(self) -> None:
        fault, seconds = self._dice.choice(self._faults), self._dice.uniform(0.5, _LONGEST_SECONDS)
        name = fault.__name__
        self._record.note("nemesis", "fault", name=name)
        self._struck = self._record.now
        async with fault():
            await asyncio.sleep(seconds)  # how long it lasts at least
        self._record.note("nemesis", "over", name=name)

    async def _until_stale(self) -> None:
        """Wait until every worker and the API say that Redis is away, and see that it is in the record."""
        workers, client = self._stage.workers, self._stage.client
        await asyncio.gather(workers.until_stale(), client.until_refused(since=self._struck))
        workers.look()

    @asynccontextmanager
    async def watcher_killed(self) -> AsyncIterator[None]:
        number = self._dice.randrange(2)
        self._stage.watchers.kill(number)
        yield
        self._stage.watchers.restart(number)

    @asynccontextmanager
    async def watcher_paused(self) -> AsyncIterator[None]:
        number = self._dice.randrange(2)
        self._stage.watchers.pause(number)
        yield
        self._stage.watchers.resume(number)

    @asynccontextmanager
    async def api_killed(self) -> AsyncIterator[None]:
        self._stage.api.kill()
        yield
        self._stage.api.restart()
        await self._stage.client.until_alive()

    @asynccontextmanager
    async def redis_killed(self) -> AsyncIterator[None]:
        self._stage.server.kill()
        yield
        await self._until_stale()
        self._stage.server.start()

    @asynccontextmanager
    async def redis_emptied(self) -> AsyncIterator[None]:
        self._stage.server.kill()
        shutil.rmtree(self._stage.server.directory / "appendonlydir")
        yield
        await self._until_stale()
        self._stage.server.start()

    @asynccontextmanager
    async def redis_frozen(self) -> AsyncIterator[None]:
        self._stage.server.freeze()
        yield
        await self._until_stale()
        self._stage.server.thaw()

    @asynccontextmanager
    async def network_stalled(self) -> AsyncIterator[None]:
        self._stage.proxy.stall()
        yield
        await self._until_stale()
        self._stage.proxy.flow()

    @asynccontextmanager
    async def connections_reset(self) -> AsyncIterator[None]:
        self._stage.proxy.cut()
        yield

    @asynccontextmanager
    async def replies_lost(self) -> AsyncIterator[None]:
        self._stage.proxy.loses = losing_replies(_SHARE_LOST, seed=self._seed)
        yield
        self._stage.proxy.loses = lambda _way, _chunk: False

    @asynccontextmanager
    async def prefix_gone(self) -> AsyncIterator[None]:
        async with self._prefix_away():
            yield

    @asynccontextmanager
    async def prefix_emptied(self) -> AsyncIterator[None]:
        async with self._prefix_away():
            self._stage.writer.prefix.mkdir()
            yield

    @asynccontextmanager
    async def _prefix_away(self) -> AsyncIterator[None]:
        prefix = self._stage.writer.prefix
        async with self._stage.writer.free:
            away = prefix.rename(prefix.parent / "away")
            yield
            await self._stage.client.until_degraded(since=self._record.now)
            if prefix.exists():
                prefix.rmdir()
            away.rename(prefix)
