"""A worker in virtual time: a schedule of updates, rollbacks, removals and requests, and the rules it breaks.

The real reconciler, residency, engine and model table, and vLLM's own table of models, over a client that
takes its time. Requests do what vLLM does, in its order: look the name up, tokenise, look it up again, and
only then are they in the list of requests under way.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short
from loradrop.worker.engine.engine import Engine
from loradrop.worker.engine.handle import Handle
from loradrop.worker.engine.model_table import ModelTable
from loradrop.worker.outcomes import Failed
from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.store.copying import Source
from loradrop.worker.store.pins import Pinned
from tests.catalog.values import an_adapter, revision
from tests.worker.vllm_parts import ErrorResponse, FakeClient, LoRARequest, serving_models

NAMES = ("sql", "code", "math")
REVISIONS = tuple(revision(digit) for digit in "abc")
PAUSES = (0.0, 0.001, 0.01, 0.05, 0.2, 1.0, 6.0)
"""Seconds: from the same moment to longer than any grace."""

CAPACITY = 2
QUIET_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Step:
    """After `pause` seconds a client asks for `name`, or the catalog has `wanted` for it (None: it is gone).

    A request needs `tokenises` seconds between its two looks at the table, and then streams for `streams`.
    Or an operator `deletes` the private store.
    """

    pause: float
    name: str
    asks: bool
    wanted: Revision | None
    tokenises: float
    streams: float
    deletes: bool = False


class World:
    """A worker, what it was told to want, and every rule it broke.

    `moment` counts what was wanted and what was loaded, in order: many things happen at one virtual time.
    """

    def __init__(self, seed: int, *, fails: float) -> None:
        self.broken: list[str] = []
        self.moment = 0
        self.wanted: dict[str, tuple[Revision | None, int]] = dict.fromkeys(NAMES, (None, 0))
        self.removals: Counter[str] = Counter()
        self.loaded: dict[tuple[str, str], int] = {}
        self.answered = 0
        self.fails = fails
        self.randomness = random.Random(seed)
        self.store = _Store(self)
        self.client = _Client(self)
        self.models = serving_models(self.client)
        table = _Table(self)
        self.reconciler = Reconciler(
            Engine(self.client, static_count=0),
            table,
            self.store.prepare,
            prefix=Path("/loras"),
            capacity=CAPACITY,
            timings=Timings(clock=asyncio.get_running_loop().time),
        )
        manual_loads = self.reconciler.manual_loads
        table.install(
            resolve=self.reconciler.resolve,
            load=manual_loads.load,
            unload=manual_loads.unload,
            is_there=self.reconciler.is_there,
            is_loaded=self.reconciler.is_loaded,
        )
        self.reconciler.replace({})

    def want(self, name: str, wanted: Revision | None) -> None:
        """Tell the worker what the catalog holds."""
        self.moment += 1
        self.wanted[name] = wanted, self.moment
        self.removals[name] += wanted is None
        self.reconciler.apply({name: an_adapter(name, revision=wanted) if wanted else None})

    async def ask(self, request_id: str, step: Step) -> None:
        """Do what vLLM does for one request, and check that it gets what it is owed."""
        removals = self.removals[step.name] if self.wanted[step.name][0] else -1
        first, request = await self._looked_up(step)
        if request is None:
            if self.removals[step.name] == removals and not self.fails:
                self.broken.append(f"{step.name} is refused although it was there all the time")
            return
        if request != first:
            self._check_owed(step.name, request)
        elif self.wanted[step.name][0] is None:
            self.broken.append(f"{step.name} is answered although it is gone")
        await asyncio.sleep(0)
        await self.client.add_request(request_id, lora_request=request)
        self._check_kept(request)
        await asyncio.sleep(step.streams)
        self._check_kept(request)
        del self.client.output_processor.request_states[request_id]
        self.answered += 1

    async def _looked_up(self, step: Step) -> tuple[LoRARequest | None, LoRARequest | None]:
        """Return what vLLM finds when the request comes, and once it is tokenised; None: it is refused."""
        if step.name not in self.models.lora_requests:
            found = await self.models.resolve_lora(step.name)
            if isinstance(found, ErrorResponse):
                return None, None
        first = self.models.lora_requests[step.name]
        if revision_of(first) not in self.store.pinned():
            self.broken.append(f"{step.name} is handed out though its files are gone")
        await asyncio.sleep(step.tokenises)
        if step.name not in self.models.lora_requests:
            return first, None
        return first, self.models.lora_requests[step.name]

    def _check_owed(self, name: str, request: LoRARequest) -> None:
        """Check that `name` led to what is wanted, or to what was before, if that is not loaded since."""
        wanted, since = self.wanted[name]
        got = revision_of(request)
        if request.lora_name != f"{name}@{short(got)}-{request.lora_int_id:016x}":
            self.broken.append(f"{name} is answered as {request.lora_name}")
        if wanted is None:
            self.broken.append(f"{name} is answered although it is gone")
        elif got != wanted and self.loaded.get((name, wanted), 0) > since:
            self.broken.append(f"{name} is answered from {short(got)} although {short(wanted)} is loaded")

    def _check_kept(self, request: LoRARequest) -> None:
        loaded = self.client.loaded.get(request.lora_int_id)
        if loaded is None or loaded.lora_path != request.lora_path:
            self.broken.append(f"{request.lora_name} is used and not loaded")
        if revision_of(request) not in self.store.pinned(deleted_too=True):
            self.broken.append(f"{request.lora_name} is used and not pinned")

    def check_at_rest(self) -> None:
        """Check that what is served is what is wanted, and that nothing else is kept."""
        served = {name: revision_of(request) for name, request in self.models.lora_requests.items()}
        for name, got in served.items():
            if got != self.wanted[name][0] and not self.fails:
                self.broken.append(f"{name} is still served from {short(got)}")
        in_engine = Counter(revision_of(request) for request in self.client.loaded.values())
        if in_engine != Counter(set(served.values())):
            self.broken.append(f"the engine holds {in_engine}, served is {served}")
        if sorted(self.store.pinned(deleted_too=True)) != sorted(served.values()):
            self.broken.append(f"{self.store.pinned(deleted_too=True)} are pinned, served is {served}")
        if sorted(self.store.pinned()) != sorted(served.values()) and not self.fails:
            self.broken.append(f"the files of {self.store.pinned()} are there, served is {served}")


class _Table(ModelTable):
    """The worker's table, which notes when a name is pointed to what is not wanted."""

    def __init__(self, world: World) -> None:
        super().__init__(world.models, clock=asyncio.get_running_loop().time)
        self._world = world

    def point(self, handle: Handle) -> None:
        if self._world.wanted[handle.name][0] != handle.revision:
            self._world.broken.append(f"{handle.name} is pointed to {short(handle.revision)}: not wanted")
        super().point(handle)
        self._world.moment += 1
        self._world.loaded[handle.name, handle.revision] = self._world.moment


class _Client(FakeClient):
    """vLLM's client, whose calls take random times and fail at times."""

    def __init__(self, world: World) -> None:
        super().__init__(max_cpu_loras=CAPACITY)
        self._world = world

    async def add_lora(self, request: LoRARequest) -> bool:
        await asyncio.sleep(self._world.randomness.choice(PAUSES[:6]))
        if self._world.randomness.random() < self._world.fails:
            raise RuntimeError("out of memory")
        if revision_of(request) not in self._world.store.pinned():
            raise RuntimeError("No adapter found")
        if len(self.loaded.keys() | {request.lora_int_id}) > CAPACITY:
            self._world.broken.append(f"{request.lora_name} has no place")
        known = self.loaded.get(request.lora_int_id, request)
        if known.lora_path != request.lora_path:
            self._world.broken.append(f"{known.lora_name} and {request.lora_name} have one id")
        return await super().add_lora(request)

    async def remove_lora(self, lora_id: int) -> bool:
        if any(state.lora_request.lora_int_id == lora_id for state in self._states()):
            self._world.broken.append(f"{self.loaded[lora_id].lora_name} is unloaded while it is used")
        removed = await super().remove_lora(lora_id)
        await asyncio.sleep(self._world.randomness.choice(PAUSES[:4]))
        return removed

    def _states(self) -> list[Any]:
        return list(self.output_processor.request_states.values())


class _Pin(Pinned):
    """A pin of files that an operator may delete."""

    is_deleted = False

    @property
    def is_held(self) -> bool:
        return self._descriptor >= 0

    def is_there(self) -> bool:
        return self.is_held and not self.is_deleted


class _Store:
    """A store whose copies take random times and fail at times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pins: list[_Pin] = []

    async def prepare(self, source: Source) -> Pinned:
        await asyncio.sleep(self._world.randomness.choice(PAUSES[:6]))
        if self._world.randomness.random() < self._world.fails:
            raise Failed("changed_while_copied", "It changed.")
        assert source.revision is not None
        directory = Path("/store") / source.revision
        self._pins.append(_Pin(source.revision, directory, os.open(os.devnull, os.O_RDONLY)))
        return self._pins[-1]

    def pinned(self, *, deleted_too: bool = False) -> list[str]:
        """Return the revisions that are pinned and, unless `deleted_too`, there."""
        return [pin.revision for pin in self._pins if pin.is_there() or (deleted_too and pin.is_held)]

    def delete(self) -> None:
        for pin in self._pins:
            pin.is_deleted = True

    def close(self) -> None:
        for pin in self._pins:
            pin.release()


def revision_of(request: LoRARequest) -> str:
    return Path(request.lora_path).name


async def lived_through(schedule: Sequence[Step], seed: int, *, fails: float = 0.0) -> World:
    """Return the world after `schedule`, at rest."""
    world = World(seed, fails=fails)
    requests = []
    background = asyncio.create_task(world.reconciler.run(preload=0))
    for number, step in enumerate(schedule):
        await asyncio.sleep(step.pause)
        if step.deletes:
            world.store.delete()
        elif step.asks:
            requests.append(asyncio.create_task(world.ask(str(number), step)))
        else:
            world.want(step.name, step.wanted)
    await asyncio.gather(*requests)
    await asyncio.sleep(QUIET_SECONDS)
    world.check_at_rest()
    background.cancel()
    with suppress(asyncio.CancelledError):
        await background
    await world.reconciler.aclose()
    world.store.close()
    return world
