"""Random histories of a prefix, played against a watcher and a model of the disk: in the end they agree."""

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.settings import NotifierChoice
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.timings import Timings
from loradrop.watcher.validation.inspection import inspect_adapter
from testkit.adapters import CONFIG, lora_weights, write_adapter
from testkit.waiting import wait_until
from tests.watcher.running import PATIENCE_SECONDS, Catalog, watching

NAMES = [f"a{number}" for number in range(6)]
STEPS = 25


class Prefix:
    """A prefix, what one can do to it, and what was ever completely in it."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path = path
        self.outside = path.parent / "outside"
        self.outside.mkdir()
        self.dice = dice
        self.seed = 0
        self.complete: set[str | None] = set()

    def step(self) -> None:
        """Do something to one adapter."""
        actions: list[Callable[[Path], None]] = [
            self._write,
            self._write,
            self._rename_in,
            self._rename_in,
            self._truncate,
            self._rewrite_in_place,
            self._remove,
            self._remove_weights,
            self._break_config,
            self._rename,
            self._link,
            self._touch,
        ]
        self.dice.choice(actions)(self.path / self.dice.choice(NAMES))
        for name in NAMES:
            self.complete.add(inspect_adapter(self.path / name, with_revision=True).revision)

    def served(self) -> dict[str, str]:
        """Name -> revision of what is completely there now."""
        found = {name: inspect_adapter(self.path / name, with_revision=True).revision for name in NAMES}
        return {name: revision for name, revision in found.items() if revision is not None}

    def present(self) -> set[str]:
        return {name for name in NAMES if (self.path / name).is_dir() or (self.path / name).is_symlink()}

    def _new_seed(self) -> int:
        self.seed += 1
        return self.seed % 200 + 1

    def _write(self, adapter: Path) -> None:
        if adapter.is_symlink():
            adapter.unlink()
        write_adapter(adapter, seed=self._new_seed())

    def _rename_in(self, adapter: Path) -> None:
        aside = write_adapter(self.outside / f"{adapter.name}-{self.seed}", seed=self._new_seed())
        self._remove(adapter)
        aside.rename(adapter)

    def _truncate(self, adapter: Path) -> None:
        if (adapter / "adapter_model.safetensors").exists():
            (adapter / "adapter_model.safetensors").write_bytes(lora_weights()[: self.dice.randrange(300)])

    def _rewrite_in_place(self, adapter: Path) -> None:
        if (adapter / "adapter_model.safetensors").exists():
            (adapter / "adapter_model.safetensors").write_bytes(lora_weights(seed=self._new_seed()))

    def _remove(self, adapter: Path) -> None:
        if adapter.is_symlink():
            adapter.unlink()
        else:
            shutil.rmtree(adapter, ignore_errors=True)

    def _remove_weights(self, adapter: Path) -> None:
        (adapter / "adapter_model.safetensors").unlink(missing_ok=True)

    def _break_config(self, adapter: Path) -> None:
        if adapter.is_dir():
            broken = self.dice.choice(
                ["{", json.dumps(CONFIG | {"r": 64}), json.dumps(CONFIG | {"bias": "all"})]
            )
            (adapter / "adapter_config.json").write_text(broken)

    def _rename(self, adapter: Path) -> None:
        other = self.path / self.dice.choice(NAMES)
        if adapter.is_dir() and not other.exists() and not other.is_symlink():
            adapter.rename(other)

    def _link(self, adapter: Path) -> None:
        store = write_adapter(self.path / ".store" / str(self.seed), seed=self._new_seed())
        self._remove(adapter)
        adapter.symlink_to(store)

    def _touch(self, adapter: Path) -> None:
        if (adapter / "adapter_config.json").exists():
            (adapter / "adapter_config.json").touch()


async def agrees(catalog: Catalog, prefix: Path, model: Prefix) -> bool:
    """Return whether the catalog says exactly what is on disk."""
    adapters = await catalog.adapters()
    ready = {name: a.revision for name, a in adapters.items() if a.state is AdapterState.READY}
    return ready == model.served() and adapters.keys() == model.present()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # watchdog's own bug
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("notifier", [NotifierChoice.INOTIFY, NotifierChoice.WATCHDOG, NotifierChoice.NONE])
async def test_catalog_and_disk_agree_after_any_history(
    seed: int,
    notifier: NotifierChoice,
    connection: Connection,
    tmp_path: Path,
) -> None:
    dice = random.Random(seed)
    path = tmp_path / "prefix"
    path.mkdir()
    model = Prefix(path, dice)
    settings = {
        "notifier": notifier,
        "interval_seconds": 0.2 if notifier is NotifierChoice.NONE else 0,
        "settle": SettleRule(settle_seconds=0.1),
        "removal": RemovalRule(grace_seconds=0.1, mass_grace_seconds=0.3),
        "timings": Timings(alive_seconds=0.5),
    }
    for _ in range(2):  # a watcher, and the next one after a restart
        model.step()
        async with watching(connection, path, **settings) as catalog:
            for _ in range(STEPS):
                model.step()
                for _ in range(dice.choice([0, 0, 1, 20])):  # now at once, now with the watcher in between
                    await asyncio.sleep(0)
            await wait_until(
                lambda: agrees(catalog, path, model),
                timeout=PATIENCE_SECONDS,
                description="catalog and disk agree",
            )
    told = {event.revision for event in await catalog.events() if event.type in ("added", "modified")}
    assert told <= model.complete, "bytes were published that were never completely there"
