"""How a revision that serves no name any more leaves the engine.

It leaves in two steps: first no name points at it; then, once no request uses it or has found it, and a grace
period has passed, it leaves the engine and its bytes may leave the store.
"""

import logging
from collections.abc import Callable

from loradrop.worker.places.interfaces import EngineLike, TableLike
from loradrop.worker.places.places import Loaded, Places
from loradrop.worker.places.timings import Timings

_log = logging.getLogger(__name__)


class Draining:
    """Invariant: no revision is unloaded that a request uses, has found, or is about to be served."""

    def __init__(
        self,
        places: Places,
        engine: EngineLike,
        table: TableLike,
        *,
        changed: Callable[[str], None],
        timings: Timings,
    ) -> None:
        """Keep what drains in `places`; call `changed` with each name whose revision begins or ends it."""
        self._places = places
        self._engine = engine
        self._table = table
        self._changed = changed
        self._timings = timings

    def begin(self, loaded: Loaded) -> None:
        """Let `loaded` go; where names point at the same revision, only its pin is released."""
        lora_id = loaded.handle.lora_id
        if self._places.names_on(lora_id):
            loaded.pinned.release()
            return
        self.cancel(lora_id)
        self._places.draining[lora_id] = (loaded, self._timings.clock())
        self._changed(loaded.handle.name)

    def cancel(self, lora_id: int) -> None:
        """Take a draining revision back: another load of it has a pin of its own."""
        draining = self._places.draining.pop(lora_id, None)
        if draining is not None:
            draining[0].pinned.release()
            self._changed(draining[0].handle.name)

    def in_use(self) -> frozenset[int]:
        """Return the ids that must stay: of requests, started or not, and of what is about to be served."""
        return self._engine.ids_in_use() | self._table.found_ids() | self._places.arrived.keys()

    async def unload_if_over(self, lora_id: int) -> None:
        """Unload it if it has drained. In the caller's turn."""
        draining = self._places.draining.get(lora_id)
        if draining is None:  # it serves again since the caller began to wait for its turn
            return
        loaded, since = draining
        is_over = self._timings.clock() - since >= self._timings.grace_seconds
        if is_over and lora_id not in self.in_use():
            del self._places.draining[lora_id]
            await self.unload(loaded)
            self._changed(loaded.handle.name)

    async def unload(self, loaded: Loaded) -> None:
        """Unload what no name points at and nothing uses. In the caller's turn."""
        try:
            await self._engine.unload(loaded.handle)
        except Exception as error:  # noqa: BLE001 - an engine that cannot unload must not stop the loop
            _log.warning("unloading failed name=%s error=%s", loaded.handle.name, error)
        loaded.pinned.release()
