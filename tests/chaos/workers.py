"""What every worker does and sees goes into the record."""

import asyncio
from collections.abc import Mapping

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from tests.chaos.record import Record
from tests.faults.followers import Fleet, Follower

_LOOK_SECONDS = 0.2


class Workers:
    """The workers of a run, and how much of what they did is in the record."""

    def __init__(self, fleet: Fleet, record: Record) -> None:
        self._fleet = fleet
        self._observed = [_Observed(follower, record) for follower in fleet.followers]

    def look(self) -> None:
        """Record what has changed since the last look."""
        for one in self._observed:
            one.look()

    async def observe(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)  # how finely the record is drawn

    async def until_stale(self) -> None:
        """Wait until every worker says that it may be behind."""
        await self._fleet.until_stale()


class _Observed:
    def __init__(self, follower: Follower, record: Record) -> None:
        self._follower = follower
        self._record = record
        self._listed: Mapping[str, Revision | None] = {}
        self._position: tuple[str | None, int] = (None, 0)
        self._is_stale = False
        self._noted = {"loaded": 0, "unloaded": 0, "withdrawn": 0, "violation": 0}

    def look(self) -> None:
        follower, note = self._follower, self._record.note
        position = follower.catalog_follower.position
        if (position.epoch, position.seq) != self._position:
            self._position = (position.epoch, position.seq)
            note(follower.id, "moved", epoch=position.epoch, seq=position.seq)
        if (position.stale is not None) != self._is_stale:
            self._is_stale = not self._is_stale
            note(follower.id, "stale" if self._is_stale else "followed_again")
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
