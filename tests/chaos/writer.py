"""A random history under a prefix: drops, updates, overwrites and removals, the same ones for a seed."""

import asyncio
import random
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from loradrop.catalog.adapter import Revision, WeightsFormat
from loradrop.watcher.validation.inspection import inspect_adapter
from testkit.adapters import lora_weights, publish_adapter
from tests.chaos.record import Record

STEADY = 20
"""Adapters that never change: nothing that happens elsewhere may touch them."""
_PAUSE_SECONDS = 0.1


class Writer:
    """Changes a prefix. `on_disk` is what is completely there, by name."""

    def __init__(self, prefix: Path, record: Record, *, adapters: int, seed: int) -> None:
        self.prefix = prefix
        self.on_disk: dict[str, Revision] = {}
        self.steady: list[str] = []
        self.free = asyncio.Lock()
        """Held while the prefix is changed, or is away."""
        self._record = record
        self._adapters = adapters
        self._dice = random.Random(f"writer {seed}")
        self._numbers = count(1)

    def begin(self) -> None:
        """Write what is there from the start; about as many there will be all along."""
        for _ in range(self._adapters):
            self._drop()
        self.steady = list(self.on_disk)[:STEADY]

    async def run(self) -> None:
        """Change one adapter after another, for ever."""
        while True:
            async with self.free:
                self._change()
            await asyncio.sleep(_PAUSE_SECONDS)  # the pace of the history, not a wait for a state

    def _change(self) -> None:
        kinds: list[Callable[[], None]] = [self._swap, self._overwrite, self._remove]
        kinds += [self._drop] * 2 if len(self.on_disk) < self._adapters else []
        self._dice.choice(kinds)()

    def _drop(self) -> None:
        self._note(publish_adapter(self.prefix, f"a{next(self._numbers):04}", seed=next(self._numbers)))

    def _swap(self) -> None:
        old = self._any()
        old = old.rename(self.prefix.parent / f"{old.name}.old")
        self._note(publish_adapter(self.prefix, old.stem, seed=next(self._numbers)))
        shutil.rmtree(old)

    def _overwrite(self) -> None:
        directory = self._any()
        weights = directory / WeightsFormat.SAFETENSORS.filename
        weights.write_bytes(lora_weights(seed=next(self._numbers)))
        self._note(directory)

    def _remove(self) -> None:
        directory = self._any()
        directory.rename(self.prefix.parent / f"{directory.name}.gone")
        shutil.rmtree(self.prefix.parent / f"{directory.name}.gone")
        del self.on_disk[directory.name]
        self._record.note("writer", "removed", name=directory.name)

    def _any(self) -> Path:
        return self.prefix / self._dice.choice(list(self.on_disk)[STEADY:])

    def _note(self, directory: Path) -> None:
        revision = inspect_adapter(directory, with_revision=True).revision
        assert revision is not None
        self.on_disk[directory.name] = revision
        self._record.note("writer", "wrote", name=directory.name, revision=revision)
