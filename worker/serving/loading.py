"""One try to load one revision: prepare it, load it, and record the outcome.

Not here: which revision is tried, and when (`reconciler`, `manual_loads`); the copy and its validation
(`preparation`); the engine's slots (`residency`).
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from loradrop.catalog.adapter import Reason
from loradrop.catalog.revision import short
from loradrop.worker.metrics import LOAD_SECONDS, LOADS
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.places.load_scheduler import Demand, NotDesired
from loradrop.worker.places.residency import Loaded, Residency
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.entry import Entry
from loradrop.worker.store.copying import Source
from loradrop.worker.store.pins import Pinned

_log = logging.getLogger(__name__)

Prepare = Callable[[Source], Awaitable[Pinned]]


class Loading:
    """Invariant: every try ends as done, failed or rejected, and is logged and counted as what it was."""

    def __init__(
        self,
        prepare: Prepare,
        residency: Residency,
        *,
        changed: Callable[[str], None],
        timings: Timings = TIMINGS,
    ) -> None:
        """Load what `prepare` returns into `residency`; call `changed` with each name that changes."""
        self._prepare = prepare
        self._residency = residency
        self._changed = changed
        self._timings = timings

    async def load(self, entry: Entry, source: Source, demand: Demand | None = None) -> Loaded:
        """Return the revision of `source`, loaded, with no name pointing at it yet.

        It is loaded immediately, or in the background given a `demand`. Raises Rejected, Failed and
        NotDesired, with nothing left behind.
        """
        started = self._timings.clock()
        entry.tries += 1
        self._changed(entry.name)
        try:
            loaded = await self._load(entry, source, demand)
        except Rejected as rejected:
            LOADS.labels("rejected").inc()
            _log.warning("adapter rejected name=%s reason=%s", entry.name, rejected.reason)
            raise
        except Failed as failed:
            _note_failure(entry, failed.reason)
            raise
        except NotDesired:
            _log.debug("adapter not desired any more name=%s", entry.name)
            raise
        except Exception as error:
            _log.exception("loading broke name=%s", entry.name)
            reason = Reason("internal_error", f"loradrop broke on it: {error!r}.")
            _note_failure(entry, reason)
            raise Failed(reason.code, reason.message) from error
        finally:
            entry.tries -= 1
            self._changed(entry.name)
        return replace(loaded, seconds=self._timings.clock() - started)

    def serve(self, entry: Entry, loaded: Loaded) -> None:
        """Point the name at `loaded`, which is the desired revision."""
        self._residency.serve(loaded)
        entry.note_loaded(loaded.seconds)
        LOADS.labels("loaded").inc()
        LOAD_SECONDS.observe(loaded.seconds)
        _log.info(
            "adapter loaded name=%s revision=%s seconds=%.3f",
            *(entry.name, short(loaded.handle.revision), loaded.seconds),
        )

    async def _load(self, entry: Entry, source: Source, demand: Demand | None) -> Loaded:
        pinned = await self._prepare(source)
        return await self._residency.load(entry.name, pinned, demand)


def _note_failure(entry: Entry, reason: Reason) -> None:
    LOADS.labels("failed").inc()
    again = entry.fault is not None and entry.fault.reason == reason
    level = logging.DEBUG if again else logging.WARNING
    _log.log(level, "adapter failed name=%s reason=%s", entry.name, reason)
