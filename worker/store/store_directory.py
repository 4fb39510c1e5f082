"""The directories of the private store, made again where an operator deletes them while they are used."""

import asyncio
import logging
from pathlib import Path

from loradrop.catalog.adapter import Reason
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.deadline import DEADLINE
from loradrop.worker.store.deadline_threads import DeadlineThreads

_log = logging.getLogger(__name__)


class StoreDirectory:
    """Invariant: a store that was deleted is there again soon, or it is said why not."""

    def __init__(self, directory: Path, *, interval_seconds: float = 0.5) -> None:
        """Use `directory`, made if need be, and look after it every `interval_seconds`; raises OSError."""
        self.revisions = directory / "revisions"
        self.incoming = directory / "incoming"
        self._interval_seconds = interval_seconds
        self._threads = DeadlineThreads("Making the private store", late="store_timed_out", at_once=1)
        self.make()

    def make(self) -> None:
        """Make what is not there; raises OSError."""
        for directory in (self.revisions, self.incoming):
            directory.mkdir(parents=True, exist_ok=True)

    def reason(self) -> Reason | None:
        """Return why nothing can be copied now, or None."""
        if self.revisions.is_dir() and self.incoming.is_dir():
            return None
        store = self.revisions.parent
        return Reason("store_gone", f"The private store {store} was deleted. Check --lora-cache-dir.")

    async def keep(self) -> None:
        """Make the store again whenever it was deleted, for ever."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            reason = self.reason()
            if reason is None:
                continue
            try:
                seconds = DEADLINE.seconds_for(0)
                await self._threads.run(lambda _: self.make(), about=reason.code, seconds=seconds)
            except (OSError, Failed) as error:
                _log.debug("store cannot be made again error=%s", error)
            else:
                _log.warning("store was deleted, it is made again directory=%s", self.revisions.parent)
