"""Workers without a vLLM: the real follower, reconciler, store and reporter around a stub engine.

`python -m tests.faults.followers URL STORE ID HELD` is one as a process of its own, to be stopped and killed.
"""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.catalog.store import Connection, Listing, Reader, Reports, Timeouts
from loradrop.worker.engine.handle import Handle
from loradrop.worker.fleet.catalog_follower import CatalogFollower
from loradrop.worker.fleet.reporter import Reporter
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.store.copying import Source, digest_copy
from loradrop.worker.store.pins import Pinned
from loradrop.worker.store.revision_store import RevisionStore
from testkit.fakes import FakeEngine, FakeTable
from testkit.waiting import wait_until
from tests.catalog.values import a_worker
from tests.faults.table import Row
from tests.faults.watchers import History
from tests.watcher.running import PATIENCE_SECONDS

_CAPACITY = 1_000
_BLOCK_SECONDS = 0.1
"""How often a follower looks whether it is in step."""


class ProvingEngine(FakeEngine):
    """An engine that reads what it is given to load: other bytes than were published are a violation."""

    async def load(self, handle: Handle) -> None:
        if await asyncio.to_thread(digest_copy, handle.directory) != handle.revision:
            self.violations.append(f"bytes that were never published: {handle.name}")
        await super().load(handle)


class CountingTable(FakeTable):
    """A table of served names that remembers which handles it stopped serving."""

    def __init__(self) -> None:
        super().__init__()
        self.withdrawn: list[Handle] = []

    def remove(self, name: str) -> None:
        self.withdrawn += [self.served[name]] if name in self.served else []
        super().remove(name)


class CountingReader(Reader):
    """A reader that counts how often the whole catalog was listed."""

    listings = 0

    async def listing(self) -> Listing:
        listing = await super().listing()
        self.listings += 1
        return listing


class Follower:
    """One worker, and what it would say to a request."""

    def __init__(
        self, connection: Connection, store: Path, worker_id: str, *, timings: Timings = TIMINGS
    ) -> None:
        self.id = worker_id
        self.engine, self.table = ProvingEngine(), CountingTable()
        self._store = RevisionStore(store, max_bytes=1 << 30)
        self._pins: list[Pinned] = []
        self.reconciler = Reconciler(
            self.engine, self.table, self._prepare, prefix=None, capacity=_CAPACITY, timings=timings
        )
        self.reader = CountingReader(connection, block_seconds=_BLOCK_SECONDS)
        self.catalog_follower = CatalogFollower(
            self.reader, self.reconciler, moved=self.reconciler.status.wakeup
        )
        self._reporter = Reporter(
            Reports(connection),
            a_worker(worker_id),
            adapters=self.reconciler.status,
            position=lambda: self.catalog_follower.position,
            degraded=lambda: None,
        )

    def listed(self) -> dict[str, Revision | None]:
        """What `/v1/models` would show."""
        return {adapter.name: adapter.revision for adapter in self.reconciler.listed()}

    async def serve(self, *names: str) -> None:
        """Load `names`, as requests for them would."""
        for name in names:
            await self.reconciler.resolve(name)

    def false_unloads(self, wanted: Mapping[str, Revision]) -> int:
        """How often something was let go of that was wanted all the time."""
        gone = [*self.engine.unloads, *self.table.withdrawn]
        return sum(1 for handle in gone if wanted.get(handle.name) == handle.revision)

    @asynccontextmanager
    async def running(self, *, preload: int | None = 0) -> AsyncIterator[None]:
        """Follow, reconcile and report for the length of the block."""
        tasks = [
            asyncio.create_task(self.catalog_follower.run()),
            asyncio.create_task(self.reconciler.run(preload=preload)),
            asyncio.create_task(self._reporter.run()),
        ]
        try:
            yield
            assert not any(task.done() for task in tasks), f"{self.id} broke"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.reconciler.aclose()
            for pinned in self._pins:
                pinned.release()

    async def _prepare(self, source: Source) -> Pinned:
        pinned = await self._store.obtain(source)
        self._pins.append(pinned)
        return pinned


@dataclass(frozen=True, slots=True)
class Fleet:
    """Followers of one catalog."""

    followers: Sequence[Follower]

    async def until_listed(self, wanted: Mapping[str, Revision]) -> float:
        """Wait until every follower lists exactly `wanted` and is not stale; return the seconds it took."""
        return await wait_until(
            lambda: all(
                f.listed() == wanted and f.catalog_follower.position.stale is None for f in self.followers
            ),
            timeout=PATIENCE_SECONDS,
            description=f"{len(self.followers)} followers list {len(wanted)} adapters",
        )

    async def until_converged(self, history: History, wanted: Mapping[str, Revision]) -> None:
        """Wait until the catalog holds exactly `wanted`, says that this is all, and all followers list it."""
        await history.until_revisions(wanted)
        await history.until_complete()
        await self.until_listed(wanted)

    async def until_stale(self) -> float:
        """Wait until every follower knows that it may be behind; return the seconds it took."""
        return await wait_until(
            lambda: all(f.catalog_follower.position.stale is not None for f in self.followers),
            timeout=PATIENCE_SECONDS,
            description="every follower says that it is stale",
        )

    async def until_epoch_other_than(self, epoch: str) -> float:
        """Wait until every follower follows another catalog than that of `epoch`; return the seconds."""
        return await wait_until(
            lambda: all(f.catalog_follower.position.epoch not in {epoch, None} for f in self.followers),
            timeout=PATIENCE_SECONDS,
            description="every follower has seen the new epoch",
        )

    async def serve(self, names: Iterable[str]) -> None:
        """Load `names` on every follower."""
        await asyncio.gather(*(follower.serve(*names) for follower in self.followers))

    async def check(self, row: Row, history: History, wanted: Mapping[str, Revision]) -> None:
        """Count what breaks the invariants, on every follower, beside what `history` counts."""
        await history.check(row, expected=wanted)
        for follower in self.followers:
            row.lost += len(wanted.items() - follower.listed().items())
            row.false_unloads += follower.false_unloads(wanted)
            assert follower.engine.violations == []
        for revisions in (await history.published()).values():
            row.duplicates += sum(one == next_one for one, next_one in pairwise(revisions))
        seqs = [event.seq for event in await history.catalog.events()]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "the stream has no gap"


@asynccontextmanager
async def following(
    url: str, stores: Path, *, count: int = 2, timeouts: Timeouts | None = None, timings: Timings = TIMINGS
) -> AsyncIterator[Fleet]:
    """Run `count` followers of the catalog at `url` for the length of the block."""
    async with AsyncExitStack() as stack:
        followers = []
        for number in range(count):
            connection = await stack.enter_async_context(Connection(url, timeouts=timeouts or Timeouts()))
            follower = Follower(connection, stores / f"store{number}", f"gpu-{number}:8000", timings=timings)
            await stack.enter_async_context(follower.running())
            followers.append(follower)
        yield Fleet(followers)


@contextmanager
def follower_process(
    url: str, store: Path, worker_id: str, *, log: Path, held: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one that loads all there is ahead, as a process; `held`: no load of its engine ever ends."""
    command = [sys.executable, "-m", "tests.faults.followers", url, str(store), worker_id, str(int(held))]
    with log.open("ab") as stderr:
        child = subprocess.Popen(command, stderr=stderr)
        try:
            yield child
        finally:
            child.kill()
            child.wait()


async def _follow(url: str, store: str, worker_id: str, held: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    async with Connection(url) as connection:
        follower = Follower(connection, Path(store), worker_id)
        if held == "1":
            follower.engine.gate.clear()
        async with follower.running(preload=None):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_follow(*sys.argv[1:]))
