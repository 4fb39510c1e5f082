"""List, then follow: keeps what is desired equal to the catalog, whatever Redis does.

A gap, a regress or a new epoch means: list again. While Redis is away, the worker serves what is known,
reports that it is stale, and reconnects after growing pauses; where nothing is known yet, it begins with what
it offered before it was started. Nothing is ever unloaded because Redis is away, nor because it fell back to
older data: what it lost was not removed, and its watcher publishes it again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.backoff import HALF_JITTER, Backoff
from loradrop.catalog.errors import (
    CatalogDenied,
    CatalogRefused,
    CatalogUnavailable,
    LoradropError,
    ResyncNeeded,
)
from loradrop.catalog.store import Listing, Reader
from loradrop.worker.serving.reconciler import Reconciler

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """How far this worker has come. `stale` is why it may be behind without knowing, or None."""

    epoch: str | None = None
    seq: int = 0
    stale: LoradropError | None = None


class CatalogFollower:
    """Feeds the reconciler. Invariant: what it has applied is the catalog at `position`."""

    def __init__(
        self,
        reader: Reader,
        reconciler: Reconciler,
        *,
        moved: asyncio.Event,
        warm_start: Mapping[str, Adapter] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Read from `reader`; set `moved` whenever the position changes.

        `warm_start` is what was offered before the start; it counts until there is a listing.
        """
        self._reader = reader
        self._reconciler = reconciler
        self._moved = moved
        self._warm_start = warm_start
        self._backoff = backoff or Backoff(0.2, 4.0, jitter=HALF_JITTER)
        self._listing: Listing | None = None
        self._position = Position()

    @property
    def position(self) -> Position:
        """How far this worker has come."""
        return self._position

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                async for _ in self._follow():
                    self._backoff.reset()
            except ResyncNeeded as error:
                _log.info("listing the catalog again reason=%s", error)
                self._listing = None
            except (CatalogUnavailable, CatalogDenied, CatalogRefused) as error:
                self._note_stale(error)
                await asyncio.sleep(self._backoff.pause_seconds())

    async def _follow(self) -> AsyncIterator[None]:
        """List if need be, then apply batch after batch; yields after each."""
        if self._listing is None:
            await self._list()
            yield
        assert self._listing is not None  # just listed
        async for batch in self._reader.follow(self._listing):
            self._reconciler.apply(batch.changes)
            self._listing = replace(self._listing, seq=batch.seq, cursor=batch.cursor)
            self._move_to(self._listing)
            yield

    async def _list(self) -> None:
        listing = await self._reader.listing()
        if listing.unreadable:
            _log.warning("records not readable, kept as they were names=%s", sorted(listing.unreadable))
        if self._is_older(listing):
            _log.warning("Redis fell back, keeping what is known until a watcher has published it again")
        elif listing.complete:
            self._reconciler.replace(listing.adapters, listing.unreadable)
        else:  # a name that is missing may only be late
            self._reconciler.apply(listing.adapters)
        self._listing = replace(listing, adapters={})
        self._move_to(listing)
        _log.info(
            "catalog listed epoch=%s seq=%d adapters=%d complete=%s",
            *(listing.epoch, listing.seq, len(listing.adapters), listing.complete),
        )

    def _is_older(self, listing: Listing) -> bool:
        """Return whether Redis holds less of this catalog than this worker has applied of it."""
        return listing.epoch == self._position.epoch and listing.seq < self._position.seq

    def _move_to(self, listing: Listing) -> None:
        if self._position.stale is not None and self._position.epoch is not None:
            _log.info("catalog is followed again seq=%d", listing.seq)
        position = Position(listing.epoch, listing.seq)
        if position != self._position:
            self._position = position
            self._moved.set()

    def _note_stale(self, error: LoradropError) -> None:
        first = self._position.stale is None and self._position.epoch is not None
        _log.log(
            logging.WARNING if first else logging.DEBUG,
            "catalog not reachable, serving what is known error=%s",
            error,
        )
        if self._position == Position() and self._warm_start:
            _log.warning(
                "starting without Redis, offering what was served last adapters=%d", len(self._warm_start)
            )
            self._reconciler.apply(self._warm_start)
        self._position = replace(self._position, stale=error)
        self._moved.set()
