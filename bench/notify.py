"""Watches and hints against a bare asyncinotify loop: how long they take to begin, and to tell.

python bench/notify.py [ADAPTERS]
"""

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bench.scan import examined
from bench.support.bare import watched
from bench.support.prefixes import dropping, filled, names
from bench.support.tables import ratio, show_latencies
from loradrop.watcher.notify.inotify import InotifyNotifier
from loradrop.watcher.notify.notifier import Hint
from loradrop.watcher.prefix.findings import Finding
from loradrop.watcher.prefix.scan import scan
from testkit.waiting import wait_until

SIZE = 50_000
ROUNDS = 3
DROPS = 150

Heard = dict[str, float]
"""When the first word of each adapter came, in seconds of a monotonic clock."""


async def main() -> None:
    """Print the tables."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else SIZE
    with filled(size) as prefix:
        show_starts(prefix, size)
        known = examined(prefix, size)
        seconds: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            for way, listen, busy in (
                ("bare loop, idle", bare, at_rest),
                ("loradrop, idle", loradrop, at_rest),
                ("loradrop, rescans back to back", loradrop, rescanning),
            ):
                async with listen(prefix) as heard, busy(prefix, known):
                    found = await drop(prefix, heard, f"r{number}")
                seconds.setdefault(way, []).extend(found)
        title = f"From just before a rename to the hint, {size} adapters watched"
        show_latencies(title, seconds, "loradrop, idle")


def show_starts(prefix: Path, size: int) -> None:
    """Print how long the watches take to begin."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        gc.collect()
        started = time.perf_counter()
        notifier = InotifyNotifier(prefix, lambda _hint: None)
        notifier.cover(names(size))
        ours.append(time.perf_counter() - started)
        assert notifier.blind is None
        notifier.close()
        gc.collect()
        started = time.perf_counter()
        inotify = watched(prefix, names(size))
        theirs.append(time.perf_counter() - started)
        inotify.close()
    print(f"\nWatches on {size} adapters: {1000 * statistics.median(ours):.0f} ms,", end=" ")
    print(f"{ratio(ours, theirs):.2f} x a bare asyncinotify loop")


@asynccontextmanager
async def loradrop(prefix: Path) -> AsyncIterator[Heard]:
    """Listen with loradrop's notifier."""
    heard: Heard = {}

    def hear(hint: Hint) -> None:
        if hint.name is not None:
            heard.setdefault(hint.name, time.monotonic())

    notifier = InotifyNotifier(prefix, hear)
    notifier.cover([directory.name for directory in prefix.iterdir()])
    async with running(notifier.follow):
        yield heard
    notifier.close()


@asynccontextmanager
async def bare(prefix: Path) -> AsyncIterator[Heard]:
    """Listen with asyncinotify alone."""
    heard: Heard = {}
    with watched(prefix, [directory.name for directory in prefix.iterdir()]) as inotify:

        async def follow() -> None:
            async for event in inotify:
                if event.name is not None:
                    heard.setdefault(str(event.name), time.monotonic())

        async with running(follow):
            yield heard


@asynccontextmanager
async def at_rest(_prefix: Path, _known: dict[str, Finding]) -> AsyncIterator[None]:
    """Do nothing meanwhile."""
    yield


@asynccontextmanager
async def rescanning(prefix: Path, known: dict[str, Finding]) -> AsyncIterator[None]:
    """Rescan without a pause meanwhile, in a thread as the watcher does."""

    async def rescan() -> None:
        while True:
            await asyncio.to_thread(scan, prefix, known)

    async with running(rescan):
        yield


@asynccontextmanager
async def running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work` for the length of the block."""
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def drop(prefix: Path, heard: Heard, label: str) -> list[float]:
    """Drop adapters and return the seconds from just before each rename to its hint."""
    with dropping(prefix, DROPS, label) as drops:
        drops.go()
        dropped = await asyncio.to_thread(drops.times)
        await wait_until(lambda: dropped.keys() <= heard.keys(), timeout=60, description="all are hinted")
    return [heard[name] - at for name, at in dropped.items()]


if __name__ == "__main__":
    asyncio.run(main())
