"""Adapters that change at random under a prefix, each change known by its revision."""

import random
import shutil
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.revision import RevisionHasher, short
from tests.e2e.prefix import Prefix

SEEDS_PER_NAME = 5
_REMOVALS = 0.25
_IN_PLACE = 0.2
_MOST_GONE = 2
"""More at once are taken for an accident, and held back."""


class Churn:
    """Changes `names` under `prefix`. `on_disk` is what is there now, `seeds` every revision ever made."""

    def __init__(self, prefix: Prefix, names: list[str], randomness: random.Random) -> None:
        self._prefix = prefix
        self._random = randomness
        self._pools = {
            name: [100 * number + k for k in range(1, SEEDS_PER_NAME + 1)]
            for number, name in enumerate(names)
        }
        self._last_seed: dict[str, int] = {}
        self.on_disk: dict[str, str | None] = dict.fromkeys(names)
        self.seeds: dict[str, int] = {}
        self.kinds: dict[str, int] = dict.fromkeys(("drop", "update", "rollback", "removal"), 0)

    def change(self, name: str) -> None:
        """Drop, update, roll back or remove `name`."""
        few_gone = list(self.on_disk.values()).count(None) < _MOST_GONE
        if self.on_disk[name] is not None and few_gone and self._random.random() < _REMOVALS:
            self._prefix.remove(name)
            self.on_disk[name] = None
            self.kinds["removal"] += 1
            return
        seed = self._random.choice([s for s in self._pools[name] if s != self._last_seed.get(name)])
        in_place = self.on_disk[name] is not None and self._random.random() < _IN_PLACE
        put = self._prefix.copy_in if in_place else self._prefix.rename_in
        revision = revision_of(put(name, seed=seed))
        kind = "rollback" if revision in self.seeds else "update"
        self.kinds["drop" if self.on_disk[name] is None else kind] += 1
        self.on_disk[name], self.seeds[revision], self._last_seed[name] = revision, seed, seed

    def remove_all(self) -> list[str]:
        """Remove up to half of what is there, as no accident would, and return the names left."""
        left = sorted(path.name for path in self._prefix.directory.iterdir())
        for name in left[: max(1, len(left) // 2)]:
            shutil.rmtree(self._prefix.directory / name)
        return left[max(1, len(left) // 2) :]


def revision_of(directory: Path) -> str:
    """Return the first digits of the digest of an adapter's bytes, as watcher and worker compute it."""
    weights = (directory / WeightsFormat.SAFETENSORS.filename).read_bytes()
    config = (directory / CONFIG_FILENAME).read_bytes()
    hasher = RevisionHasher(WeightsFormat.SAFETENSORS, config, len(weights))
    hasher.update(weights)
    return short(hasher.revision())
