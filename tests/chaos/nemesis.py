"""What goes wrong, chosen by a seed: one fault at a time, each ended once those it concerns have noticed."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from catalog.errors import LoradropError
from catalog.store import Connection, Reports
from tests.chaos.record import Record
from tests.chaos.writer import Writer
from tests.faults.followers import Fleet
from tests.faults.proxy import Proxy, losing_replies
from tests.faults.watchers import QUICK
from tests.servers import ValkeyServer
from tests.waiting import wait_until

PATIENCE_SECONDS = 60
_SHARE_LOST = 0.1
_LONGEST_SECONDS = 4.0

Fault = Callable[[], AbstractAsyncContextManager[None]]


class Watchers:
    """Two watchers of one prefix: one leads, the other stands by."""

    def __init__(self, url: str, prefix: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "watcher", "--redis-url", url, *QUICK]
        self._command += ["--lora-dir-prefix", str(prefix)]
        self._log = log.open("ab")
        self._children = [self._start(), self._start()]

    def kill(self, number: int) -> None:
        self._children[number].kill()
        self._children[number].wait()

    def restart(self, number: int) -> None:
        self._children[number] = self._start()

    def pause(self, number: int) -> None:
        os.kill(self._children[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self._children[number].pid, signal.SIGCONT)

    def close(self) -> None:
        for number in range(len(self._children)):
            self.kill(number)
        self._log.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stderr=self._log)


class Nemesis:
    """Breaks one thing after another. Keeps true: between two faults nothing is broken."""

    def __init__(
        self,
        server: ValkeyServer,
        proxy: Proxy,
        watchers: Watchers,
        fleet: Fleet,
        writer: Writer,
        *,
        seed: int,
    ) -> None:
        self._server, self._proxy, self._watchers = server, proxy, watchers
        self._fleet, self._writer = fleet, writer
        self._seed = seed
        self._dice = random.Random(f"faults {seed}")
        self._faults: list[Fault] = [
            self.watcher_killed,
            self.watcher_paused,
            self.redis_killed,
            self.redis_emptied,
            self.redis_frozen,
            self.connections_reset,
            self.replies_lost,
            self.network_stalled,
            self.prefix_gone,
            self.prefix_emptied,
        ]

    async def strike(self, record: Record) -> None:
        """Let one fault begin, last, and end."""
        fault, seconds = self._dice.choice(self._faults), self._dice.uniform(0.5, _LONGEST_SECONDS)
        name = fault.__name__  # type: ignore[attr-defined]  # a method has one
        record.note("nemesis", "fault", name=name)
        async with fault():
            await asyncio.sleep(seconds)  # how long it lasts at least
        record.note("nemesis", "over", name=name)
        await asyncio.sleep(self._dice.uniform(0.5, _LONGEST_SECONDS))  # until the next

    @asynccontextmanager
    async def watcher_killed(self) -> AsyncIterator[None]:
        number = self._dice.randrange(2)
        self._watchers.kill(number)
        yield
        self._watchers.restart(number)

    @asynccontextmanager
    async def watcher_paused(self) -> AsyncIterator[None]:
        number = self._dice.randrange(2)
        self._watchers.pause(number)
        yield
        self._watchers.resume(number)

    @asynccontextmanager
    async def redis_killed(self) -> AsyncIterator[None]:
        self._server.kill()
        yield
        await self._fleet.until_stale()
        self._server.start()

    @asynccontextmanager
    async def redis_emptied(self) -> AsyncIterator[None]:
        self._server.kill()
        shutil.rmtree(self._server.directory / "appendonlydir")
        yield
        await self._fleet.until_stale()
        self._server.start()

    @asynccontextmanager
    async def redis_frozen(self) -> AsyncIterator[None]:
        self._server.freeze()
        yield
        await self._fleet.until_stale()
        self._server.thaw()

    @asynccontextmanager
    async def network_stalled(self) -> AsyncIterator[None]:
        self._proxy.stall()
        yield
        await self._fleet.until_stale()
        self._proxy.flow()

    @asynccontextmanager
    async def connections_reset(self) -> AsyncIterator[None]:
        self._proxy.cut()
        yield

    @asynccontextmanager
    async def replies_lost(self) -> AsyncIterator[None]:
        self._proxy.loses = losing_replies(_SHARE_LOST, seed=self._seed)
        yield
        self._proxy.loses = lambda _way, _chunk: False

    @asynccontextmanager
    async def prefix_gone(self) -> AsyncIterator[None]:
        async with self._prefix_away():
            yield

    @asynccontextmanager
    async def prefix_emptied(self) -> AsyncIterator[None]:
        async with self._prefix_away():
            self._writer.prefix.mkdir()
            yield

    @asynccontextmanager
    async def _prefix_away(self) -> AsyncIterator[None]:
        prefix = self._writer.prefix
        async with self._writer.free:
            away = prefix.rename(prefix.parent / "away")
            yield
            async with Connection(self._server.url) as connection:
                await wait_until(
                    lambda: _is_degraded(Reports(connection)),
                    timeout=PATIENCE_SECONDS,
                    description="the watcher says that it cannot trust the prefix",
                )
            if prefix.exists():
                prefix.rmdir()
            away.rename(prefix)


async def _is_degraded(reports: Reports) -> bool:
    try:
        status = await reports.watcher()
    except LoradropError:
        return False
    return status is not None and status.degraded is not None
