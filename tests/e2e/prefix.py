"""A prefix full of adapters for the tiny model, changed the ways writers change it."""

import shutil
from pathlib import Path
from typing import Any

from testkit.tiny_model import write_tiny_adapter

_WEIGHTS = "adapter_model.safetensors"


class Prefix:
    """A directory of adapters. `aside` is on the same filesystem, for what is renamed in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.aside = directory.parent / "aside"
        for needed in (self.directory, self.aside):
            needed.mkdir(parents=True, exist_ok=True)

    def rename_in(self, name: str, *, seed: int, **adapter: Any) -> Path:
        """Write an adapter aside, then rename it into place: the safe way."""
        target = self.directory / name
        if target.exists():
            target.rename(self.aside / f"{name}.old")
            shutil.rmtree(self.aside / f"{name}.old")
        return write_tiny_adapter(self.aside / name, seed=seed, **adapter).rename(target)

    def copy_in(self, name: str, *, seed: int, **adapter: Any) -> Path:
        """Copy an adapter in, file by file, as `cp -r` does."""
        source = write_tiny_adapter(self.aside / name, seed=seed, **adapter)
        target = Path(shutil.copytree(source, self.directory / name, dirs_exist_ok=True))
        shutil.rmtree(source)
        return target

    def drop_half(self, name: str, *, seed: int) -> None:
        """Drop an adapter whose weights are still to come, with `complete`."""
        half = write_tiny_adapter(self.aside / name, seed=seed)
        (half / _WEIGHTS).rename(self.aside / f"{name}-{_WEIGHTS}")
        half.rename(self.directory / name)

    def complete(self, name: str) -> None:
        """Drop the weights of `name`."""
        (self.aside / f"{name}-{_WEIGHTS}").rename(self.directory / name / _WEIGHTS)

    def remove(self, name: str) -> None:
        """Remove an adapter, as `rm -r` does."""
        shutil.rmtree(self.directory / name)
