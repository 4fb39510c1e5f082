"""What a request for an adapter is answered: what serves it, or why nothing does and when to ask again.

The first request for a name brings its revision. Where the disk is ahead of the catalog, the request
waits a moment for the catalog to say by how much.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import NameTaken, NotServedYet, Rejected, UnknownModel
from loradrop.worker.serving.entries import Names
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.residency import Residency

_CATALOG_PATIENCE_SECONDS = 5.0
"""How long a request waits for the catalog to catch up with the disk: a copy of a second, and settling."""

_AHEAD_ON_DISK = frozenset({"source_gone", "changed_on_disk", "changed_while_copied"})


class Resolver:
    """Keeps true: a request is answered from what was wanted when it came, or later, or told why not."""

    def __init__(self, names: Names, residency: Residency, bring: Callable[[Entry], Awaitable[None]]) -> None:
        """Answer from `residency`; `bring` tries to make it hold what is wanted for an entry."""
        self._names = names
        self._residency = residency
        self._bring = bring
        self._knows_catalog = False
        self._news = asyncio.Event()

    def note_news(self, *, whole: bool) -> None:
        """Note that the catalog has changed; `whole`: all of it is known now."""
        self._knows_catalog |= whole
        self._news.set()
        self._news = asyncio.Event()

    async def resolve(self, name: str) -> Handle:
        """Return what answers for `name`, loading it if need be.

        Raises UnknownModel, Rejected with the reason, or NotServedYet where it is worth asking again.
        """
        entry = self._names.get(name)
        if entry is None or (entry.adapter is None and entry.by_hand is None):
            if self._knows_catalog:
                raise UnknownModel(name)
            raise NotServedYet(
                Reason("catalog_unavailable", "The catalog of adapters has not been read yet.")
            )
        if handle := self._residency.handle_of(name):
            return handle
        if self._names.is_taken(name):
            raise NameTaken
        return await self._brought(entry)

    async def _brought(self, entry: Entry) -> Handle:
        """Bring what is wanted and return it; where the disk is ahead of the catalog, wait for the catalog.

        Raises UnknownModel, Rejected and NotServedYet.
        """
        deadline = asyncio.get_running_loop().time() + _CATALOG_PATIENCE_SECONDS
        with contextlib.suppress(TimeoutError):
            while True:
                news = self._news
                if not _is_ahead_on_disk(entry):
                    _raise_if_hopeless(entry)
                    await asyncio.shield(self._bring(entry))
                    if handle := self._residency.handle_of(entry.name):
                        return handle
                if not _is_ahead_on_disk(entry):
                    break
                async with asyncio.timeout_at(deadline):
                    await news.wait()
        _raise_if_hopeless(entry)
        raise NotServedYet(Reason("superseded", f"{entry.name} changed while it was loaded."))


def _is_ahead_on_disk(entry: Entry) -> bool:
    """Whether the wanted revision is no longer there to be copied: the watcher is about to say so."""
    fault = entry.fault_now(datetime.now(UTC))
    return fault is not None and fault.reason.code in _AHEAD_ON_DISK


def _raise_if_hopeless(entry: Entry) -> None:
    """Raise what a request is told when trying to load the adapter now would not help."""
    adapter = entry.adapter
    if adapter is None and entry.by_hand is None:
        raise UnknownModel(entry.name)
    if adapter is not None and entry.wanted is None:
        reason = adapter.reason or Reason(adapter.state, "Its files are not complete and still yet.")
        if adapter.state is AdapterState.REJECTED:
            raise Rejected(reason.code, reason.message)
        raise NotServedYet(reason)
    now = datetime.now(UTC)
    fault = entry.fault_now(now)
    if fault is not None and fault.retry_at is None:
        raise Rejected(fault.reason.code, fault.reason.message)
    if fault is not None and fault.retry_at is not None:
        wait = max(1, round((fault.retry_at - now).total_seconds()))
        raise NotServedYet(fault.reason, retry_after_seconds=wait)
