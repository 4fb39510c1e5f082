"""Adapters under a prefix, as a worker sees them: a source, with the revision the catalog would give it."""

import asyncio
import threading
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.worker.store.copying import Copy, Permit, Source, copy_adapter, digest_copy
from loradrop.worker.store.pins import Pinned
from loradrop.worker.store.revision_store import RevisionStore, StoreTimings
from testkit.adapters import write_adapter


def published(prefix: Path, name: str = "sql", *, seed: int = 1) -> Source:
    """Write an adapter into the prefix and return the source the catalog would lead to."""
    directory = write_adapter(prefix / name, seed=seed)
    return Source(prefix, name, digest_of(directory), sum(f.stat().st_size for f in directory.iterdir()))


def digest_of(directory: Path) -> Revision:
    revision = digest_copy(directory)
    assert revision is not None
    return revision


def revisions_in(store: Path) -> set[str]:
    """Return the revisions a store shows; fails if one is not what its name says."""
    directories = list((store / "revisions").iterdir())
    for directory in directories:
        assert digest_copy(directory) == directory.name
    return {directory.name for directory in directories}


def unfinished_in(store: Path) -> list[Path]:
    return list((store / "incoming").iterdir())


def evict(store: Path) -> None:
    """Evict all that is not pinned, however young it is."""
    RevisionStore(store, max_bytes=0, timings=StoreTimings(young_seconds=0.0)).evict()


def is_pinned(store: Path, revision: Revision | None) -> bool:
    """Return whether any process keeps `revision` from being evicted; if not, it is."""
    evict(store)
    return revision in {path.name for path in (store / "revisions").iterdir()}


class HungStorage:
    """Storage that does not answer for the paths in `hung` until `thaw`."""

    def __init__(self) -> None:
        self.hung: set[str] = set()
        self.waiting = 0
        self._thawed = threading.Event()

    def copy_adapter(self, source: Source, into: Path, permit: Permit) -> Copy:
        if source.path in self.hung:
            self.waiting += 1
            self._thawed.wait(30)
            self.waiting -= 1
        return copy_adapter(source, into, lambda _: None)  # however late, the copy is made

    def thaw(self) -> None:
        self._thawed.set()


async def obtained(store: RevisionStore, *sources: Source) -> list[Pinned]:
    return await asyncio.gather(*(store.obtain(source) for source in sources))
