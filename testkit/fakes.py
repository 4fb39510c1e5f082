"""Stand-ins that keep the other side's contract: real classes, with failures that can be scripted."""

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Container
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.store.copying import Source
from loradrop.worker.store.pins import Pinned


class FakeEngine:
    """An engine (`worker.places.interfaces.EngineLike`) that keeps a table of what it holds.

    `outcomes[name]` are what the next loads of a name raise, None standing for one that goes well.
    Clear `gate` to hold loads until it is set, `unload_gate` to hold unloads. `violations` lists what
    would kill or corrupt a vLLM; `served` are the ids that names point at, which must not be unloaded.
    `places` is how many revisions it may hold, where that is to be watched.
    """

    def __init__(self, served: Callable[[], Container[int]] = frozenset) -> None:
        self._served = served
        self.idle_checks = 0
        self.holds: dict[int, Handle] = {}
        self.in_use: set[int] = set()
        self.outcomes: defaultdict[str, deque[Exception | None]] = defaultdict(deque)
        self.unload_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.unload_gate = asyncio.Event()
        self.unload_gate.set()
        self.loads: list[Handle] = []
        self.unloads: list[Handle] = []
        self.violations: list[str] = []
        self.places: int | None = None
        self._under_way = 0
        self._spoilt: set[int] = set()

    async def load(self, handle: Handle) -> None:
        """Load, after the gate has opened; raises what was scripted."""
        if handle.lora_id in self._spoilt:
            self.violations.append(f"the id of a failed load is used again: {handle.name}")
        if any(
            h.inner_name == handle.inner_name and h.lora_id != handle.lora_id for h in self.holds.values()
        ):
            self.violations.append(f"two ids of one inner name: {handle.inner_name}")
        if self._under_way:
            self.violations.append("two loads at once")
        self._under_way += 1
        self.loads.append(handle)
        try:
            await self.gate.wait()
        finally:
            self._under_way -= 1
        scripted = self.outcomes[handle.name]
        outcome = scripted.popleft() if scripted else None
        if outcome is not None:
            self._spoilt.add(handle.lora_id)
            raise outcome
        self.holds[handle.lora_id] = handle
        if self.places is not None and len(self.holds) > self.places:
            self.violations.append(f"more than its places: {self.held_revisions()}")

    async def unload(self, handle: Handle) -> None:
        """Free the slot; raises `unload_error`."""
        self.unloads.append(handle)
        if handle.lora_id in self.in_use:
            self.violations.append(f"unloaded while requests use it: {handle.name}")
        if handle.lora_id in self._served():
            self.violations.append(f"unloaded while its name points at it: {handle.name}")
        await self.unload_gate.wait()
        if self.unload_error is not None:
            raise self.unload_error
        self.holds.pop(handle.lora_id, None)

    def ids_in_use(self) -> frozenset[int]:
        return frozenset(self.in_use)

    def is_idle(self) -> bool:
        self.idle_checks += 1
        return not self.in_use

    def held_revisions(self) -> list[tuple[str, Revision]]:
        """Return what is loaded, in order."""
        return sorted((handle.name, handle.revision) for handle in self.holds.values())


class FakeTable:
    """A table of served names (`worker.places.interfaces.TableLike`). `taken` are not ours."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.served: dict[str, Handle] = {}
        self.taken: set[str] = set()
        self.touched: dict[str, float] = {}
        self.visits: list[str] = []
        self.found: set[int] = set()

    def point(self, handle: Handle) -> None:
        self.served[handle.name] = handle

    def served_ids(self) -> set[int]:
        return {handle.lora_id for handle in self.served.values()}

    def remove(self, name: str) -> None:
        self.served.pop(name, None)
        self.touched.pop(name, None)
        self.taken.discard(name)

    def withdraw(self, name: str) -> None:
        self.remove(name)

    def found_ids(self) -> frozenset[int]:
        return frozenset(self.found)

    def last_touched(self, name: str) -> float | None:
        self.visits.append(name)
        return self.touched.get(name)

    def is_taken(self, name: str) -> bool:
        return name in self.taken

    def touch(self, name: str, *, ago_seconds: float = 0.0) -> None:
        """A request asks for `name`, or did so some seconds ago."""
        self.touched[name] = self._clock() - ago_seconds


class _RecordedPin(Pinned):
    """A real pin that knows whether it was released."""

    is_released = False
    is_deleted = False

    def is_there(self) -> bool:
        return not (self.is_deleted or self.is_released)

    def release(self) -> None:
        self.is_released = True
        super().release()


class FakeStore:
    """A store of revisions whose `prepare` hands out real pins.

    `outcomes[path]` are what the next calls for a source raise, None standing for one that goes well;
    a source without a revision turns out to hold `unnamed`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.outcomes: defaultdict[str, deque[Exception | None]] = defaultdict(deque)
        self.gate = asyncio.Event()
        self.gate.set()
        self.sources: list[Source] = []
        self.unnamed = Revision("e" * 64)
        self._pins: list[_RecordedPin] = []

    async def prepare(self, source: Source) -> Pinned:
        """Return the revision of `source`, pinned, after the gate has opened; raises what was scripted."""
        self.sources.append(source)
        await self.gate.wait()
        scripted = self.outcomes[source.path]
        outcome = scripted.popleft() if scripted else None
        if outcome is not None:
            raise outcome
        revision = source.revision or self.unnamed
        pinned = _RecordedPin(revision, self._directory / revision, os.open(os.devnull, os.O_RDONLY))
        self._pins.append(pinned)
        return pinned

    def pinned(self) -> list[Revision]:
        """Return the revisions that are pinned, as often as they are."""
        return sorted(pin.revision for pin in self._pins if not pin.is_released)

    def delete(self) -> None:
        """An operator deletes the store's directories."""
        for pin in self._pins:
            pin.is_deleted = True

    def close(self) -> None:
        for pin in self._pins:
            pin.release()


def rejected(code: str = "weights_not_finite") -> Rejected:
    return Rejected(code, "These bytes will never do.")


def failed(code: str = "disk_full") -> Failed:
    return Failed(code, "Not this time.")
