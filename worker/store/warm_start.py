"""What a worker served, kept on its own disk: what it has to go by where it starts and Redis is away.

Only adapters whose bytes are in the private store are kept: those can be proven without the prefix, too.
Whether one was updated or removed meanwhile shows once Redis is back.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import RecordInvalid
from loradrop.catalog.wire import decode_adapter, encode_adapter
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.deadline_threads import StorageThreads
from loradrop.worker.store.revision_store import RevisionStore

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
"""Between two looks at what is served: a worker that is killed forgets no more than this."""
_PATIENCE_SECONDS = 30.0
_NAME_BYTES = 8


class LastKnown:
    """A file of records. Keeps true: it is there whole, or as it was before, or not at all."""

    def __init__(self, directory: Path, store: RevisionStore, *, of: str) -> None:
        """Keep it in `directory`; `of` tells this catalog from all others that may be kept there."""
        self._path = directory / f"{blake3(of.encode()).hexdigest(_NAME_BYTES)}.jsonl"
        self._store = store
        self._written: str | None = None
        self._threads = StorageThreads("Keeping what is served", late="store_timed_out", at_once=1)

    def read(self) -> dict[str, Adapter]:
        """Return what was served and is still in the store, by name: nothing where nothing was kept."""
        try:
            records = self._path.read_text().split("\n")  # splitlines() would split names at U+2028, too
            adapters = [decode_adapter(record) for record in records if record]
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, RecordInvalid) as error:
            _log.warning("what was served cannot be read path=%s error=%s", self._path, error)
            return {}
        held = self._store.revisions()
        return {adapter.name: adapter for adapter in adapters if adapter.revision in held}

    async def keep(self, served: Callable[[], Sequence[Adapter] | None]) -> None:
        """Write down what `served` returns whenever it has changed, for ever; None: it is not known."""
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            adapters = served()
            if adapters is not None:
                await self._keep(adapters)

    async def _keep(self, adapters: Sequence[Adapter]) -> None:
        try:
            await self._threads.run(
                lambda given_up: self._write(adapters, given_up),
                about=str(self._path),
                seconds=_PATIENCE_SECONDS,
                discard=lambda _: None,
            )
        except (OSError, Failed) as error:
            _log.warning("what is served cannot be kept path=%s error=%s", self._path, error)

    def _write(self, adapters: Sequence[Adapter], given_up: threading.Event) -> None:
        held = self._store.revisions()
        text = "\n".join(encode_adapter(adapter) for adapter in adapters if adapter.revision in held)
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
