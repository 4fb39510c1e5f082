"""From a directory under the prefix to proven, private, admitted bytes: all that comes before the engine.

Copy and digest (`revision_store`), read once (`weights`), compare with base model and server (`checks`).
A revision that was admitted once is admitted again without another look.
"""

from pathlib import Path
from typing import Protocol

from loradrop.catalog.adapter import Revision
from loradrop.catalog.lora.config import LoraConfig
from loradrop.worker.admission.base_fit import BaseModel
from loradrop.worker.admission.checks import Limits, Weights, check_adapter
from loradrop.worker.admission.weights import read_adapter
from loradrop.worker.store.copying import Source
from loradrop.worker.store.deadline import DEADLINE, Deadline
from loradrop.worker.store.deadline_threads import DeadlineThreads
from loradrop.worker.store.pins import Pinned
from loradrop.worker.store.revision_store import RevisionStore

_CONCURRENT_ADMISSIONS = 2


class _ReadAdapter(Protocol):
    def __call__(self, directory: Path, *, allow_pickle: bool) -> tuple[LoraConfig, Weights]: ...


class Preparation:
    """Invariant: what it returns is pinned, private, and fit for this base model and server."""

    def __init__(
        self,
        store: RevisionStore,
        *,
        base: BaseModel | None,
        limits: Limits,
        allow_pickle: bool,
        read: _ReadAdapter = read_adapter,
        deadline: Deadline = DEADLINE,
    ) -> None:
        """Prepare for an engine of these limits; `base` is None where its checkpoint is not known."""
        self._store = store
        self._base = base
        self._limits = limits
        self._allow_pickle = allow_pickle
        self._read = read
        self._deadline = deadline
        self._admitted: set[Revision] = set()
        self._admissions = DeadlineThreads(
            "Reading the private copy", late="admission_timed_out", at_once=_CONCURRENT_ADMISSIONS
        )

    async def prepare(self, source: Source) -> Pinned:
        """Return the revision of `source`, pinned; raises Rejected or Failed, with nothing pinned."""
        pinned = await self._store.obtain(source)
        try:
            if pinned.revision not in self._admitted:
                await self._admissions.run(
                    lambda _: self._admit(pinned.directory),
                    about=pinned.revision,
                    seconds=self._deadline.seconds_for(source.size_bytes),
                    discard=lambda _: None,
                )
                self._admitted.add(pinned.revision)
        except BaseException:
            pinned.release()
            raise
        return pinned

    def _admit(self, directory: Path) -> None:
        config, weights = self._read(directory, allow_pickle=self._allow_pickle)
        check_adapter(config, weights, self._base, self._limits)
