"""Makes room in the engine for a load: by what is unused, else by what is in use, once its requests end.

With two places, A and B in use by requests, and requests for C and then again for A:

    waiting     serving   draining
    C           B         A          A, unused for longest, is withdrawn: its requests finish
    C, A        B         A          A waits behind C
    A           B, C      -          A has drained, and C was loaded in its place
    A           C         B
    -           C, A      -
"""

import logging
from collections.abc import Callable

from loradrop.worker.outcomes import Failed
from loradrop.worker.places.draining import Draining
from loradrop.worker.places.interfaces import TableLike
from loradrop.worker.places.load_scheduler import NotDesired
from loradrop.worker.places.places import Claim, Loaded, Places
from loradrop.worker.places.timings import Timings

_log = logging.getLogger(__name__)


class Room:
    """Invariant: requests that wait for a place get one in the order in which they came, or are told."""

    def __init__(
        self,
        places: Places,
        draining: Draining,
        table: TableLike,
        *,
        changed: Callable[[str], None],
        timings: Timings,
    ) -> None:
        """Make room in `places`; call `changed` with each name that is withdrawn."""
        self._places = places
        self._draining = draining
        self._table = table
        self._changed = changed
        self._timings = timings
        self._next_withdrawal = 0.0

    def last_used(self, name: str, loaded: Loaded) -> float:
        """Return when (monotonic seconds) a request last asked for `name`, which `loaded` serves."""
        # The request a revision was loaded for touches the name only after the load.
        return max(self._table.last_touched(name) or 0.0, loaded.loaded_at)

    async def has_place(self, claim: Claim) -> bool:
        """Return whether there is a place for `claim`, made where that is possible. In its turn.

        Raises Failed where a request has waited for too long, and NotDesired where nothing needs it enough to
        make room.
        """
        places = self._places
        if not places.is_next(claim):
            self._raise_if_overdue(claim)
            return False
        if places.has(places.handle_for(claim).lora_id):
            return True
        for lora_id in list(places.draining) if places.taken() >= places.capacity else ():
            await self._draining.unload_if_over(lora_id)
        if places.taken() < places.capacity:
            return True
        if claim.is_ahead(places):
            raise NotDesired
        unused = self._unused_for_longest(but_not=self._draining.in_use())
        if unused is not None:
            await self._draining.unload(self._withdraw(unused))
            return True
        self._raise_if_overdue(claim)
        self._withdraw_one_in_use(claim)
        return False

    def _raise_if_overdue(self, claim: Claim) -> None:
        waited = self._timings.clock() - claim.since
        if claim.demand.requested.is_set() and waited >= self._timings.place_wait_seconds:
            raise Failed(
                "no_place",
                f"All {self._places.capacity} places of the engine are in use: raise --max-cpu-loras.",
            )

    def _withdraw_one_in_use(self, claim: Claim) -> None:
        """Withdraw one that is in use, so that its place becomes free once its requests have ended."""
        now = self._timings.clock()
        if not claim.demand.requested.is_set():
            if now - claim.since < self._timings.update_patience_seconds:
                return
            claim.demand.requested.set()  # from here on requests for the name wait for it
        elif self._places.draining and now < self._next_withdrawal:
            return
        replaced = self._places.serving.get(claim.name)
        chosen = replaced.handle.lora_id if replaced is not None else self._unused_for_longest()
        if chosen is not None:
            self._draining.begin(self._withdraw(chosen))
            self._next_withdrawal = now + self._timings.withdraw_seconds

    def _unused_for_longest(self, *, but_not: frozenset[int] = frozenset()) -> int | None:
        """Return the id that was asked for longest ago; None where all were just now, or are `but_not`."""
        until = self._timings.clock() - self._timings.grace_seconds
        used: dict[int, float] = {}
        for name, loaded in self._places.serving.items():
            lora_id = loaded.handle.lora_id
            used[lora_id] = max(self.last_used(name, loaded), used.get(lora_id, 0.0))
        free = used.keys() - but_not
        longest = min(free, key=used.__getitem__, default=None)
        return longest if longest is not None and used[longest] <= until else None

    def _withdraw(self, lora_id: int) -> Loaded:
        """Point the names that lead to it at nothing until they are asked for again, and return it."""
        names = self._places.names_on(lora_id)
        for name in names:
            self._table.withdraw(name)
            self._changed(name)
            _log.debug("adapter made room name=%s", name)
        withdrawn, *others = [self._places.serving.pop(name) for name in names]
        for loaded in others:
            loaded.pinned.release()
        return withdrawn
