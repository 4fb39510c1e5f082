"""One try to bring one revision to the engine: prepare it, load it, and say what came of it.

Not here: which revision is to be tried, and when (`reconciler`, `by_hand`); the copy and its proof
(`preparation`); the engine's places (`residency`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from loradrop.catalog.adapter import Reason, Revision
from loradrop.catalog.revision import short
from loradrop.worker.engine.handle import Handle
from loradrop.worker.metrics import LOAD_SECONDS, LOADS
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.load_scheduler import Demand, NotWanted
from loradrop.worker.serving.residency import Held, Residency
from loradrop.worker.store.copying import Source
from loradrop.worker.store.pins import Pinned

_log = logging.getLogger(__name__)

Prepare = Callable[[Source], Awaitable[Pinned]]


class Loading:
    """Keeps true: every try ends as done, failed or rejected, and is logged and counted as what it was."""

    def __init__(self, prepare: Prepare, residency: Residency, *, changed: Callable[[str], None]) -> None:
        """Load what `prepare` returns into `residency`; call `changed` with each name that changes."""
        self._prepare = prepare
        self._residency = residency
        self._changed = changed
        self._refused: Counter[tuple[str, Revision]] = Counter()  # outlives the entries

    async def hold(self, entry: Entry, source: Source, demand: Demand | None = None) -> Held:
        """Return the revision of `source`, loaded, with nothing pointing at it yet.

        It is loaded at once, or in the background, as far as `demand` goes. Raises Rejected, Failed and
        NotWanted, with nothing left behind.
        """
        started = asyncio.get_running_loop().time()
        entry.loading += 1
        self._changed(entry.name)
        try:
            held = await self._held(entry, source, demand)
        except Rejected as rejected:
            LOADS.labels("rejected").inc()
            _log.warning("adapter rejected name=%s reason=%s", entry.name, rejected.reason)
            raise
        except Failed as failed:
            self._note_failure(entry, failed.reason)
            raise
        except NotWanted:
            _log.debug("adapter not wanted any more name=%s", entry.name)
            raise
        except Exception as error:
            _log.exception("loading broke name=%s", entry.name)
            reason = Reason("internal_error", f"loradrop broke on it: {error!r}.")
            self._note_failure(entry, reason)
            raise Failed(reason.code, reason.message) from error
        finally:
            entry.loading -= 1
            self._changed(entry.name)
        return replace(held, seconds=asyncio.get_running_loop().time() - started)

    def serve(self, entry: Entry, held: Held) -> None:
        """Let the name point at `held`, which is what is wanted."""
        self._residency.serve(held)
        entry.loaded(held.seconds)
        LOADS.labels("loaded").inc()
        LOAD_SECONDS.observe(held.seconds)
        _log.info(
            "adapter loaded name=%s revision=%s seconds=%.3f",
            *(entry.name, short(held.handle.revision), held.seconds),
        )

    async def _held(self, entry: Entry, source: Source, demand: Demand | None) -> Held:
        pinned = await self._prepare(source)
        key = entry.name, pinned.revision
        handle = Handle.of(*key, pinned.directory, attempt=self._refused[key])
        try:
            return await self._residency.load(handle, pinned, demand)
        except (Rejected, Failed):
            self._refused[key] += 1
            raise

    def _note_failure(self, entry: Entry, reason: Reason) -> None:
        LOADS.labels("failed").inc()
        again = entry.fault is not None and entry.fault.reason == reason
        level = logging.DEBUG if again else logging.WARNING
        _log.log(level, "adapter failed name=%s reason=%s", entry.name, reason)
