"""Answers a request for an adapter: the revision that serves it, or why none does and when to retry.

The first request for a name loads its revision. Where the disk is ahead of the catalog (the revision the
catalog names is no longer there to be copied), the request waits a moment for the catalog's next change.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import NameTaken, NotServedYet, Rejected, UnknownModel
from loradrop.worker.places.residency import Residency
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.entries import Entries
from loradrop.worker.serving.entry import Entry

_AHEAD_ON_DISK = frozenset({"source_gone", "changed_on_disk", "changed_while_copied"})


class Resolver:
    """Invariant: a request is answered from what was desired when it came, or later, or told why not."""

    def __init__(
        self,
        entries: Entries,
        residency: Residency,
        load_desired: Callable[[Entry], Awaitable[None]],
        timings: Timings = TIMINGS,
    ) -> None:
        """Answer from `residency`; `load_desired` tries to load what is desired for an entry."""
        self._entries = entries
        self._residency = residency
        self._load_desired = load_desired
        self._timings = timings
        self._is_catalog_known = False
        self._catalog_changed = asyncio.Event()

    def note_catalog_change(self, *, is_whole: bool) -> None:
        """Wake the requests that wait for the catalog; `is_whole`: every name in it is known now."""
        self._is_catalog_known |= is_whole
        self._catalog_changed.set()
        self._catalog_changed = asyncio.Event()

    async def resolve(self, name: str) -> Handle:
        """Return what answers for `name`, loading it if need be.

        Raises UnknownModel, Rejected with the reason, or NotServedYet where the client should retry.
        """
        entry = self._entries.get(name)
        if entry is None or (entry.adapter is None and entry.manual is None):
            if self._is_catalog_known:
                raise UnknownModel(name)
            unread = Reason("catalog_unavailable", "The catalog of adapters has not been read yet.")
            raise NotServedYet(unread, of_worker=True)
        if handle := self._residency.handle_of(name):
            return handle
        if self._entries.is_taken(name):
            raise NameTaken
        return await self._load(entry)

    async def _load(self, entry: Entry) -> Handle:
        """Load what is desired and return it; where the disk is ahead of the catalog, wait for the catalog.

        Raises UnknownModel, Rejected and NotServedYet.
        """
        deadline = asyncio.get_running_loop().time() + self._timings.catalog_wait_seconds
        with contextlib.suppress(TimeoutError):
            while True:
                changed = self._catalog_changed
                if not _is_ahead_on_disk(entry):
                    _raise_if_hopeless(entry)
                    await asyncio.shield(self._load_desired(entry))
                    if handle := self._residency.handle_of(entry.name):
                        return handle
                if not _is_ahead_on_disk(entry):
                    break
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
        _raise_if_hopeless(entry)
        raise NotServedYet(Reason("superseded", f"{entry.name} changed while it was loaded."))


def _is_ahead_on_disk(entry: Entry) -> bool:
    """Whether the desired revision is no longer there to be copied: the watcher is about to say so."""
    fault = entry.current_fault(datetime.now(UTC))
    return fault is not None and fault.reason.code in _AHEAD_ON_DISK


def _raise_if_hopeless(entry: Entry) -> None:
    """Raise what a request is told when trying to load the adapter now would not help."""
    adapter = entry.adapter
    if adapter is None and entry.manual is None:
        raise UnknownModel(entry.name)
    if adapter is not None and entry.desired is None:
        reason = adapter.reason or Reason(adapter.state, "Its files are not complete and still yet.")
        if adapter.state is AdapterState.REJECTED:
            raise Rejected(reason.code, reason.message)
        raise NotServedYet(reason)
    now = datetime.now(UTC)
    fault = entry.current_fault(now)
    if fault is not None and fault.retry_at is None:
        raise Rejected(fault.reason.code, fault.reason.message)
    if fault is not None and fault.retry_at is not None:
        wait = max(1, round((fault.retry_at - now).total_seconds()))
        raise NotServedYet(fault.reason, retry_after_seconds=wait)
