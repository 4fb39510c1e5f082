"""Adapters loaded and unloaded by hand, through vLLM's own routes.

They come from under the prefix only, with the same proofs as what is discovered there. What was loaded by
hand stays until it is unloaded by hand, whatever the catalog says of the name. A client that goes away
before its load is done has loaded nothing.
"""

import asyncio
import contextlib
import functools
from dataclasses import replace
from pathlib import Path

from loradrop.worker.outcomes import Failed, NameTaken, Rejected, UnknownModel
from loradrop.worker.serving.entries import Names
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.loading import Loading
from loradrop.worker.serving.residency import Held, Residency
from loradrop.worker.store.copying import Source, size_bytes
from loradrop.worker.store.deadline_threads import StorageThreads, patience_seconds

_LOOKS_AT_ONCE = 4


class ByHand:
    """Answers vLLM's load and unload routes, with vLLM's sentences."""

    def __init__(self, names: Names, loading: Loading, residency: Residency, *, prefix: Path | None) -> None:
        """Load from under `prefix`; without one, nothing."""
        self._names = names
        self._loading = loading
        self._residency = residency
        self._prefix = prefix
        self._looks = StorageThreads("Looking at the prefix", late="prefix_timed_out", at_once=_LOOKS_AT_ONCE)
        self._sources: dict[str, Source] = {}
        self._under_way: set[asyncio.Task[Held]] = set()

    async def load(self, name: str, path: str, *, in_place: bool) -> str:
        """Serve the directory `path` under `name` until it is unloaded, and return vLLM's sentence.

        Raises PermissionError outside the prefix, Rejected and Failed.
        """
        if self._names.is_taken(name):
            raise NameTaken
        source = await self._looks.run(
            lambda _: self._source(path), about=path, seconds=patience_seconds(0), discard=lambda _: None
        )
        entry = self._names.known(name)
        if entry.adapter is not None and entry.adapter.revision is not None and not in_place:
            raise Rejected("already_served", "It is discovered under the prefix; just ask for it.")
        held = await self._held(entry, source)
        entry = self._names.known(name)
        entry.by_hand = held.handle.revision
        self._sources[name] = source
        self._loading.serve(entry, held)
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload(self, name: str) -> str:
        """Undo `load` and return vLLM's sentence; raises UnknownModel and Rejected."""
        entry = self._names.get(name)
        if entry is None:
            raise UnknownModel(f"The lora adapter '{name}' cannot be found.")
        if entry.by_hand is None:
            raise Rejected("discovered", "It is discovered; remove its directory to stop serving it.")
        entry.by_hand = None
        del self._sources[name]
        self._residency.withdraw(name)
        if entry.adapter is None:
            self._names.lose(name)
        return f"Success: LoRA adapter '{name}' removed successfully."

    async def aclose(self) -> None:
        """Stop the loads under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Rejected, Failed):
                await task

    def source_of(self, entry: Entry) -> Source | None:
        """Return where what was loaded by hand came from, or None where the catalog decides."""
        if entry.by_hand is None:
            return None
        return replace(self._sources[entry.name], revision=entry.by_hand)

    async def _held(self, entry: Entry, source: Source) -> Held:
        """Return `source`, loaded. A load that has begun goes on without us: half of one cannot be undone."""
        loading = asyncio.create_task(self._loading.hold(entry, source), name=f"loradrop-hand-{entry.name}")
        self._under_way.add(loading)
        loading.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(functools.partial(self._let_go, entry.name))
            raise
        except (Rejected, Failed):
            self._names.drop_if_empty(entry)
            raise

    def _let_go(self, name: str, loading: asyncio.Task[Held]) -> None:
        """Undo a load nobody waited for."""
        if not loading.cancelled() and loading.exception() is None:
            self._residency.leave(loading.result())
        entry = self._names.get(name)
        if entry is not None and entry.adapter is None and entry.by_hand is None:
            self._names.lose(name)

    def _source(self, path: str) -> Source:
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
