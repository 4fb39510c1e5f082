"""Adapters loaded and unloaded manually, through vLLM's own routes.

They come from under the prefix only, validated like what is discovered there. What was loaded manually is
served until it is unloaded manually, whatever the catalog says of the name. A client that disconnects before
its load is done has loaded nothing.
"""

import asyncio
import functools
from dataclasses import replace
from pathlib import Path

from loradrop.worker.outcomes import Failed, NameTaken, Rejected, UnknownModel
from loradrop.worker.places.residency import Loaded, Residency
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.entries import Entries
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.loading import Loading
from loradrop.worker.store.copying import Source, size_bytes
from loradrop.worker.store.deadline_threads import DeadlineThreads
from loradrop.worker.supervision import cancelled

_CONCURRENT_READS = 4
_ABSENT = "source_gone"


class ManualLoads:
    """Answers vLLM's load and unload routes, with vLLM's sentences."""

    def __init__(
        self,
        entries: Entries,
        loading: Loading,
        residency: Residency,
        *,
        prefix: Path | None,
        timings: Timings = TIMINGS,
    ) -> None:
        """Load from under `prefix`; without one, nothing."""
        self._entries = entries
        self._loading = loading
        self._residency = residency
        self._prefix = prefix
        self._deadline = timings.deadline
        self._reads = DeadlineThreads(
            "Reading the prefix", late="prefix_timed_out", at_once=_CONCURRENT_READS
        )
        self._sources: dict[str, Source] = {}
        self._tasks: set[asyncio.Task[Loaded]] = set()

    async def load(self, name: str, path: str, *, in_place: bool) -> str:
        """Serve the directory `path` under `name` until it is unloaded, and return vLLM's sentence.

        Raises PermissionError outside the prefix, UnknownModel where nothing is there, Rejected and Failed.
        """
        if self._entries.is_taken(name):
            raise NameTaken
        seconds = self._deadline.seconds_for(0)
        source = await self._reads.run(lambda _: self._find(path), about=path, seconds=seconds)
        entry = self._entries.get_or_add(name)
        if entry.adapter is not None and entry.adapter.revision is not None and not in_place:
            raise Rejected("already_served", "It is discovered under the prefix; just ask for it.")
        try:
            loaded = await self._load(entry, source)
        except Failed as failed:
            if failed.reason.code != _ABSENT:
                raise
            raise UnknownModel(f"Loading lora {name} failed: No adapter found for {path}") from failed
        entry = self._entries.get_or_add(name)
        entry.manual = loaded.handle.revision
        self._sources[name] = source
        self._loading.serve(entry, loaded)
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload(self, name: str) -> str:
        """Undo `load` and return vLLM's sentence; raises UnknownModel and Rejected."""
        entry = self._entries.get(name)
        if entry is None or (entry.adapter is None and entry.manual is None):
            raise UnknownModel(f"The lora adapter '{name}' cannot be found.")
        if entry.manual is None:
            raise Rejected("discovered", "It is discovered; remove its directory to stop serving it.")
        entry.manual = None
        del self._sources[name]
        self._residency.drain(name)
        if entry.adapter is None:
            self._entries.remove(name)
        return f"Success: LoRA adapter '{name}' removed successfully."

    async def aclose(self) -> None:
        """Stop the loads in progress."""
        await cancelled(self._tasks)

    def source_of(self, entry: Entry) -> Source | None:
        """Return where a manual load came from, or None where the catalog decides."""
        if entry.manual is None:
            return None
        return replace(self._sources[entry.name], revision=entry.manual)

    async def _load(self, entry: Entry, source: Source) -> Loaded:
        """Return `source`, loaded. A cancelled client does not stop the engine's load, which has no undo."""
        loading = asyncio.create_task(self._loading.load(entry, source), name=f"loradrop-manual-{entry.name}")
        self._tasks.add(loading)
        loading.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(functools.partial(self._drain_abandoned, entry.name))
            raise
        except (Rejected, Failed):
            self._entries.drop_if_empty(entry)
            raise

    def _drain_abandoned(self, name: str, loading: asyncio.Task[Loaded]) -> None:
        """Drain what was loaded for a client that has disconnected."""
        if not loading.cancelled() and loading.exception() is None:
            self._residency.drain_revision(loading.result())
        entry = self._entries.get(name)
        if entry is not None and entry.adapter is None and entry.manual is None:
            self._entries.remove(name)

    def _find(self, path: str) -> Source:
        if self._prefix is None:
            raise PermissionError("Adapters are loaded by hand from under --lora-dir-prefix only: set it.")
        root = self._prefix.resolve()
        try:
            resolved = (root / path).resolve()
        except (ValueError, RuntimeError):  # no path at all, links in a circle
            resolved = root
        if resolved == root or not resolved.is_relative_to(root):
            raise PermissionError("The path is outside --lora-dir-prefix: put the adapter under the prefix.")
        return Source(root, str(resolved.relative_to(root)), size_bytes=size_bytes(resolved))
