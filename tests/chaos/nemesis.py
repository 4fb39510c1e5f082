"""What goes wrong, chosen by a seed: one fault at a time, each ended once those it concerns have noticed."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

from redis.asyncio import Redis

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.store import Connection, Reader
from testkit.servers import ValkeyServer
from testkit.waiting import wait_until
from tests.chaos import catalog_losses, prefix_losses
from tests.chaos.api_client import ApiClient
from tests.chaos.judge_api import STARTED_WITHOUT_PREFIX
from tests.chaos.processes import Api, Watchers
from tests.chaos.record import Record
from tests.chaos.workers import Workers
from tests.chaos.writer import Writer
from tests.faults.proxy import Proxy, losing_replies

_SHARE_LOST = 0.1
_LONGEST_SECONDS = 4.0
_PAUSE_SECONDS = 0.3
_PATIENCE_SECONDS = 60.0

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
    """Breaks one thing after another. Invariant: between two faults nothing is broken."""

    def __init__(self, stage: Stage, record: Record, *, seed: int, only: Sequence[str] = ()) -> None:
        """Choose among all faults, or `only` some, by `seed`."""
        self._stage, self._record, self._seed = stage, record, seed
        self._dice = random.Random(f"faults {seed}")
        self._struck = 0.0
        self._faults: dict[str, Fault] = {
            "watcher_killed": self.watcher_killed,
            "watcher_paused": self.watcher_paused,
            "api_killed": self.api_killed,
            "redis_killed": self.redis_killed,
            "redis_emptied": self.redis_emptied,
            "redis_frozen": self.redis_frozen,
            "connections_reset": self.connections_reset,
            "replies_lost": self.replies_lost,
            "network_stalled": self.network_stalled,
            STARTED_WITHOUT_PREFIX: self.watchers_started_without_prefix,
        }
        self._faults |= {name: partial(self.catalog_lost, name) for name in catalog_losses.LOSSES}
        self._faults |= {name: partial(self.prefix_lost, name) for name in prefix_losses.possible()}
        unknown = set(only) - self._faults.keys()
        assert not unknown, f"no such faults: {unknown}"
        self._names = list(only or self._faults)

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
        name, seconds = self._dice.choice(self._names), self._dice.uniform(0.5, _LONGEST_SECONDS)
        if name in catalog_losses.LOSSES:
            await self._until_recorded_as_whole()
        self._record.note("nemesis", "fault", name=name)
        self._struck = self._record.now
        async with self._faults[name]():
            await asyncio.sleep(seconds)  # how long it lasts at least
        self._record.note("nemesis", "over", name=name)

    async def _until_recorded_as_whole(self) -> None:
        """Wait until the record says that the catalog is complete: the judge tells a new one by its epoch."""
        async with Connection(self._stage.server.url) as connection:
            epoch = await _until_whole(Reader(connection))
        await wait_until(
            lambda: any(
                entry["what"] == "holds" and entry["complete"] and entry["epoch"] == epoch
                for entry in self._record.entries
            ),
            timeout=_PATIENCE_SECONDS,
            description="the record says that the catalog is complete",
        )

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
    async def catalog_lost(self, name: str) -> AsyncIterator[None]:
        """Take something from the catalog; it ends once a watcher has published all again."""
        async with (
            Connection(self._stage.server.url) as connection,
            Redis.from_url(self._stage.server.url, decode_responses=True) as raw,
        ):
            reader = Reader(connection)
            epoch = await _until_whole(reader)
            await catalog_losses.LOSSES[name](raw, self._dice)
            yield
            await _until_whole(reader, other_than="" if name == catalog_losses.EVENTS_LOST else epoch)

    @asynccontextmanager
    async def prefix_lost(self, name: str) -> AsyncIterator[None]:
        """Take the prefix away; it comes back once the watcher has said that it cannot trust it."""
        async with self._stage.writer.free:
            with prefix_losses.LOSSES[name](self._stage.writer.prefix):
                yield
                await self._stage.client.until_degraded(since=self._record.now)

    @asynccontextmanager
    async def watchers_started_without_prefix(self) -> AsyncIterator[None]:
        """Both watchers start before the prefix is there, as after a reboot."""
        async with self._stage.writer.free:
            with prefix_losses.made_anew(self._stage.writer.prefix):
                for number in range(2):
                    self._stage.watchers.kill(number)
                    self._stage.watchers.restart(number)
                yield
                await self._stage.client.until_degraded(since=self._record.now)


async def _until_whole(reader: Reader, *, other_than: str = "") -> str:
    """Wait until a catalog of another epoch than that is complete, and return its epoch."""
    found = other_than

    async def is_whole() -> bool:
        nonlocal found
        with suppress(LoradropError):
            listing = await reader.listing()
            found = listing.epoch
            return found != other_than and listing.complete and not listing.unreadable
        return False

    await wait_until(is_whole, timeout=_PATIENCE_SECONDS, description="the catalog is whole")
    return found
