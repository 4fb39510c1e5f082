"""The engine's places: which revision takes each, which names lead to it, and which loads wait for one. Pure.

A revision takes one place however many names lead to it. Not here: when it is loaded, withdrawn and unloaded
(`residency`).
"""

from collections import Counter
from dataclasses import dataclass, field

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.places.load_scheduler import Demand
from loradrop.worker.store.pins import Pinned


@dataclass(frozen=True, slots=True)
class Loaded:
    """A revision in the engine, and the pin that keeps its bytes.

    `loaded_at` is monotonic time, `seconds` how long making it ready took: copy, admission and load.
    """

    handle: Handle
    pinned: Pinned
    loaded_at: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A load that waits for a place since `since`, monotonic time."""

    name: str
    pinned: Pinned
    demand: Demand
    since: float

    def is_ahead(self, places: "Places") -> bool:
        """Return whether no request waits for it and none is answered by what it replaces."""
        return not self.demand.requested.is_set() and self.name not in places.serving


@dataclass(slots=True)
class Places:
    """Who has the `capacity` places. `draining` says since when; `arrived` are to be served or drained."""

    capacity: int
    serving: dict[str, Loaded] = field(default_factory=dict)
    draining: dict[int, tuple[Loaded, float]] = field(default_factory=dict)
    arrived: Counter[int] = field(default_factory=Counter)
    claims: list[Claim] = field(default_factory=list)
    """In the order in which they came."""
    failed_loads: Counter[Revision] = field(default_factory=Counter)

    def taken(self) -> int:
        """Return how many places are taken."""
        return len(self._ids())

    def has(self, lora_id: int) -> bool:
        """Return whether it has a place."""
        return lora_id in self._ids()

    def handle_for(self, claim: Claim) -> Handle:
        """Return the handle to load for `claim`: an id that failed to load is never used again."""
        pinned = claim.pinned
        attempt = self.failed_loads[pinned.revision]
        return Handle.of(claim.name, pinned.revision, pinned.directory, attempt=attempt)

    def settle(self, lora_id: int) -> None:
        """Record that what has arrived serves, or drains."""
        self.arrived -= Counter([lora_id])  # without those that are none

    def names_on(self, lora_id: int) -> list[str]:
        """Return the names that point at it."""
        return [name for name, loaded in self.serving.items() if loaded.handle.lora_id == lora_id]

    def is_next(self, claim: Claim) -> bool:
        """Return whether the next place is for `claim`: what requests wait for comes first, in its order."""
        before = self.claims
        if claim.demand.requested.is_set():
            before = self.claims[: self.claims.index(claim)]
        return not any(other.demand.requested.is_set() for other in before)

    def _ids(self) -> set[int]:
        serving = {loaded.handle.lora_id for loaded in self.serving.values()}
        return serving | self.draining.keys() | self.arrived.keys()
