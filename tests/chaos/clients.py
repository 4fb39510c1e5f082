"""What every worker does and sees goes into the record, and requests that must always be answered."""

import asyncio
import random
from collections.abc import Mapping

from catalog.adapter import Revision
from tests.chaos.record import Record
from tests.faults.followers import Follower
from worker.handle import Handle

_LOOK_SECONDS = 0.2
_REQUEST_SECONDS = 0.05


class Observed:
    """One worker, and how much of what it did is in the record."""

    def __init__(self, follower: Follower, record: Record) -> None:
        self._follower = follower
        self._record = record
        self._listed: Mapping[str, Revision | None] = {}
        self._position: tuple[str | None, int] = (None, 0)
        self._noted = {"loaded": 0, "unloaded": 0, "withdrawn": 0, "violation": 0}

    def look(self) -> None:
        """Record what has changed since the last look."""
        follower, note = self._follower, self._record.note
        position = follower.consumer.position
        if (position.epoch, position.seq) != self._position:
            self._position = (position.epoch, position.seq)
            note(follower.id, "moved", epoch=position.epoch, seq=position.seq)
        listed = follower.listed()
        for name in self._listed.keys() - listed.keys():
            note(follower.id, "unlisted", name=name)
        for name, revision in listed.items() - self._listed.items():
            note(follower.id, "listed", name=name, revision=revision)
        self._listed = listed
        self._note_handles("unloaded", follower.engine.unloads)
        self._note_handles("loaded", follower.engine.loads)
        self._note_handles("withdrawn", follower.table.withdrawn)
        for why in follower.engine.violations[self._noted["violation"] :]:
            note(follower.id, "violation", why=why)
        self._noted["violation"] = len(follower.engine.violations)

    def _note_handles(self, what: str, handles: list[Handle]) -> None:
        for handle in handles[self._noted[what] :]:
            self._record.note(self._follower.id, what, name=handle.name, revision=handle.revision)
        self._noted[what] = len(handles)


async def observe(observed: list[Observed]) -> None:
    """Look at every worker again and again."""
    while True:
        for one in observed:
            one.look()
        await asyncio.sleep(_LOOK_SECONDS)  # how finely the record is drawn


async def ask(followers: list[Follower], names: list[str], record: Record, *, seed: int) -> None:
    """Ask any worker for any of `names`, all of which it has served before."""
    dice = random.Random(f"requests {seed}")
    while True:
        follower, name = dice.choice(followers), dice.choice(names)
        try:
            handle = await follower.reconciler.resolve(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody got an answer
            record.note(follower.id, "refused", name=name, why=repr(error))
        else:
            record.note(follower.id, "answered", name=name, revision=handle.revision)
        await asyncio.sleep(_REQUEST_SECONDS)  # the pace of the requests
