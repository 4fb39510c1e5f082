"""What the engine holds: which revision answers for a name, which ones are on their way out.

The engine stops for each load, so loads reach it in `turns`. It holds `capacity` adapters; beyond
that it would re-read evicted ones from disk in the middle of a step, where any error kills it. So room is
made first: the revision unused for longest goes, never one in use or just asked for.

A revision leaves in two steps: no name points at it any more, and once no request uses it and a grace
period has passed (a request between its check and its start is in no list), engine and store let go.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short
from loradrop.catalog.status import WorkerRevision, WorkerState
from loradrop.worker.engine.handle import Handle
from loradrop.worker.serving.load_scheduler import Demand, Turns
from loradrop.worker.store.pins import Pinned

_log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0


class EngineLike(Protocol):
    """What this needs of an engine."""

    async def load(self, handle: Handle) -> None:
        """Load; raises Rejected or Failed, with nothing left behind."""

    async def unload(self, handle: Handle) -> None:
        """Free the slot."""

    def ids_in_use(self) -> frozenset[int]:
        """Return the ids that requests are using."""

    def is_idle(self) -> bool:
        """Return whether no request is under way."""


class TableLike(Protocol):
    """What this needs of the table of served names."""

    def point(self, handle: Handle) -> None:
        """Let requests for the handle's name use it."""

    def withdraw(self, name: str) -> None:
        """Let requests for the name use nothing."""

    def last_touched(self, name: str) -> float | None:
        """Return when (event loop time) a request last asked for `name`, or None."""


@dataclass(frozen=True, slots=True)
class Held:
    """A revision in the engine, and the pin that keeps its bytes.

    `since` is the event loop's time, `seconds` how long making it ready took: copy, admission and load.
    """

    handle: Handle
    pinned: Pinned
    since: float
    seconds: float = 0.0


class Residency:
    """Keeps true: a name points at a revision that is loaded and pinned, or at nothing."""

    def __init__(
        self, engine: EngineLike, table: TableLike, *, capacity: int, changed: Callable[[str], None]
    ) -> None:
        """Hold up to `capacity` revisions in `engine`; call `changed` with each name that changes."""
        self._engine = engine
        self._table = table
        self._capacity = capacity
        self._changed = changed
        self._held: dict[str, Held] = {}
        self._leaving: dict[int, tuple[Held, float]] = {}
        self._coming: list[Handle] = []
        self._turns = Turns(engine.is_idle)

    def revision_of(self, name: str) -> Revision | None:
        """Return the revision that answers for `name`, or None."""
        held = self._held.get(name)
        return held.handle.revision if held is not None else None

    def handle_of(self, name: str) -> Handle | None:
        """Return the handle that answers for `name`, or None."""
        held = self._held.get(name)
        return held.handle if held is not None else None

    def revisions_of(self, name: str) -> tuple[WorkerRevision, ...]:
        """Return what is in the engine for `name`, or waits with its bytes pinned to get there."""
        coming = [
            WorkerRevision(revision=handle.revision, state=WorkerState.LOADING, pinned=True)
            for handle in self._coming
            if handle.name == name
        ]
        serving = [self._held[name]] if name in self._held else []
        leaving = [held for held, _ in self._leaving.values() if held.handle.name == name]
        return (
            *coming,
            *(_resident(held, WorkerState.LOADED) for held in serving),
            *(_resident(held, WorkerState.DRAINING) for held in leaving),
        )

    def totals(self) -> tuple[int, int]:
        """Return how many revisions are in the engine, and how many are pinned."""
        resident = len(self._held) + len(self._leaving)
        return resident, resident + len(self._coming)

    def names(self) -> set[str]:
        """Return the names that have anything in the engine."""
        return {*self._held, *(held.handle.name for held, _ in self._leaving.values())}

    def is_leaving(self, name: str) -> bool:
        """Return whether revisions of `name` are finishing requests."""
        return any(held.handle.name == name for held, _ in self._leaving.values())

    def has_room(self, limit: int | None) -> bool:
        """Return whether fewer than `limit` (None: as many as fit) revisions are held."""
        most = self._capacity if limit is None else min(limit, self._capacity)
        return len(self._held) + len(self._leaving) < most

    async def load(self, handle: Handle, pinned: Pinned, demand: Demand | None = None) -> Held:
        """Load `handle`, whose bytes `pinned` keeps; at once, or in the background, as far as `demand` goes.

        Raises what the engine raises, and NotWanted; the pin is released then.
        """
        self._coming.append(handle)
        self._changed(handle.name)
        try:
            async with self._turn(handle.name, demand):
                if not self._is_loaded(handle):  # else a failure would take it from the requests that use it
                    await self._make_room()
                    await self._engine.load(handle)
                self._stay(handle.lora_id)  # before the turn ends: the next one may free what is leaving
        except BaseException:
            pinned.release()
            raise
        finally:
            self._coming.remove(handle)
        return Held(handle, pinned, asyncio.get_running_loop().time())

    def serve(self, held: Held) -> None:
        """Point the handle's name at it; what it pointed at before leaves."""
        self._stay(held.handle.lora_id)
        previous = self._held.get(held.handle.name)
        self._held[held.handle.name] = held
        self._table.point(held.handle)
        if previous is not None and previous.handle.lora_id == held.handle.lora_id:
            previous.pinned.release()
        elif previous is not None:
            self.leave(previous)
        self._changed(held.handle.name)

    def withdraw(self, name: str) -> None:
        """Point `name` at nothing: new requests are refused at once, running ones finish."""
        held = self._held.pop(name, None)
        if held is not None:  # else the name may be a static module's
            self._table.withdraw(name)
            self.leave(held)
            _log.info("adapter withdrawn name=%s revision=%s", name, short(held.handle.revision))

    def leave(self, held: Held) -> None:
        """Let a revision go that its name does not point at, when nobody uses it any more."""
        serving = self._held.get(held.handle.name)
        if serving is not None and serving.handle.lora_id == held.handle.lora_id:
            held.pinned.release()  # loaded twice: the name points at it
            return
        self._stay(held.handle.lora_id)
        self._leaving[held.handle.lora_id] = (held, asyncio.get_running_loop().time())
        self._changed(held.handle.name)

    async def free_unused(self) -> None:
        """Unload what was leaving and is not used any more."""
        for lora_id in list(self._leaving):
            async with self._turns.alone():
                if not self._is_unused(lora_id):
                    continue
                held, _ = self._leaving.pop(lora_id)
                await self._let_go(held)
                self._changed(held.handle.name)

    def _is_loaded(self, handle: Handle) -> bool:
        """Return whether the engine has it already: its name points at it, or it is leaving."""
        serving = self._held.get(handle.name)
        return handle.lora_id in self._leaving or (
            serving is not None and serving.handle.lora_id == handle.lora_id
        )

    def _stay(self, lora_id: int) -> None:
        """Take back what was leaving under this id: another load of it has a pin of its own."""
        leaving = self._leaving.pop(lora_id, None)
        if leaving is not None:
            leaving[0].pinned.release()

    def _turn(self, name: str, demand: Demand | None) -> AbstractAsyncContextManager[None]:
        if demand is None:
            return self._turns.at_once()
        return self._turns.in_the_background(demand, ahead=lambda: name not in self._held)

    def _is_unused(self, lora_id: int) -> bool:
        leaving = self._leaving.get(lora_id)
        if leaving is None:  # it has returned while we waited for our turn
            return False
        over = asyncio.get_running_loop().time() - leaving[1] >= GRACE_SECONDS
        return over and lora_id not in self._engine.ids_in_use()

    async def _make_room(self) -> None:
        while not self.has_room(None) and (name := self._spare()) is not None:
            self._table.withdraw(name)
            await self._let_go(self._held.pop(name))
            _log.debug("adapter made room name=%s", name)
            self._changed(name)

    def _spare(self) -> str | None:
        """Return the name unused for longest; None where all are in use or were just asked for."""
        now = asyncio.get_running_loop().time()
        in_use = self._engine.ids_in_use()
        # The request a revision was loaded for touches the name only after the load.
        last_used = {
            name: max(self._table.last_touched(name) or 0.0, held.since)
            for name, held in self._held.items()
            if held.handle.lora_id not in in_use
        }
        name = min(last_used, key=last_used.__getitem__, default=None)
        return name if name is not None and now - last_used[name] >= GRACE_SECONDS else None

    async def _let_go(self, held: Held) -> None:
        try:
            await self._engine.unload(held.handle)
        except Exception as error:  # noqa: BLE001 - an engine that cannot unload must not stop the loop
            _log.warning("unloading failed name=%s error=%s", held.handle.name, error)
        held.pinned.release()


def _resident(held: Held, state: WorkerState) -> WorkerRevision:
    return WorkerRevision(
        revision=held.handle.revision, state=state, resident=True, pinned=True, load_seconds=held.seconds
    )
