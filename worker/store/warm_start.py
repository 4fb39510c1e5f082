"""The adapters a worker offered, kept on its own disk for a start while Redis is away.

Only adapters whose bytes are in the private store are kept: those can be verified without the prefix. Updates
and removals that were missed are applied once Redis is back.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from blake3 import blake3

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import RecordInvalid
from loradrop.catalog.wire import decode_adapter, encode_adapter
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.deadline import DEADLINE
from loradrop.worker.store.deadline_threads import DeadlineThreads
from loradrop.worker.store.revision_store import RevisionStore

_log = logging.getLogger(__name__)

_NAME_BYTES = 8


class WarmStart:
    """A file of records. Invariant: it is there whole, or as it was before, or not at all."""

    def __init__(
        self, directory: Path, store: RevisionStore, *, catalog: str, interval_seconds: float = 5.0
    ) -> None:
        """Keep it in `directory`; `catalog` identifies this catalog among all that are kept there."""
        self._path = directory / f"{blake3(catalog.encode()).hexdigest(_NAME_BYTES)}.jsonl"
        self._store = store
        self._interval_seconds = interval_seconds
        self._written: str | None = None
        self._threads = DeadlineThreads("Keeping what is served", late="store_timed_out", at_once=1)

    def read(self) -> dict[str, Adapter]:
        """Return the adapters kept whose bytes are still in the store, by name."""
        try:
            records = self._path.read_text().split("\n")  # splitlines() would split names at U+2028, too
            adapters = [decode_adapter(record) for record in records if record]
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, RecordInvalid) as error:
            _log.warning("what was served cannot be read path=%s error=%s", self._path, error)
            return {}
        stored = self._store.revisions()
        return {adapter.name: adapter for adapter in adapters if adapter.revision in stored}

    async def keep(self, served: Callable[[], Sequence[Adapter] | None]) -> None:
        """Write what `served` returns whenever it has changed, for ever; None: not known now."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            adapters = served()
            if adapters is not None:
                await self._write(adapters)

    async def _write(self, adapters: Sequence[Adapter]) -> None:
        try:
            write, seconds = partial(self._write_file, adapters), DEADLINE.seconds_for(0)
            await self._threads.run(write, about=str(self._path), seconds=seconds)
        except (OSError, Failed) as error:
            _log.warning("what is served cannot be kept path=%s error=%s", self._path, error)

    def _write_file(self, adapters: Sequence[Adapter], given_up: threading.Event) -> None:
        stored = self._store.revisions()
        text = "\n".join(encode_adapter(adapter) for adapter in adapters if adapter.revision in stored)
        if text == self._written or given_up.is_set():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            new.write_text(text)
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)
        self._written = text
