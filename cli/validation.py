"""What the watcher would make of directories on this disk, without a watcher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loradrop.catalog.adapter import CONFIG_FILENAME, AdapterState, Reason, WeightsFormat
from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.printable import printable
from loradrop.cli.errors import UsageError
from loradrop.watcher.prefix.findings import Facts
from loradrop.watcher.prefix.naming import NameCollisions, collision_reason
from loradrop.watcher.prefix.scan import scan
from loradrop.watcher.validation.inspection import inspect_adapter

_ADAPTER_FILES = (CONFIG_FILENAME, *(weights.filename for weights in WeightsFormat))
_FACTS = ("format", "size_bytes", "rank", "base_model")


@dataclass(frozen=True, slots=True)
class Validation:
    """What one directory was found to be. An accepted one has facts and a revision."""

    name: str
    path: Path
    state: AdapterState
    reason: Reason | None = None
    revision: str | None = None
    facts: Facts | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the watcher would publish it."""
        return self.state is AdapterState.READY

    def as_json(self) -> dict[str, Any]:
        """Return the validation in the words of the API."""
        return {
            "id": self.name,
            "path": printable(str(self.path)),
            "accepted": self.is_accepted,
            "state": self.state,
            "reason": msgspec.to_builtins(self.reason),
            "revision": self.revision,
            **{name: getattr(self.facts, name, None) for name in _FACTS},
        }


def validations(
    path: Path, *, allow_pickle: bool = True, allow_symlinks_to: Sequence[Path] = ()
) -> Iterator[Validation]:
    """Yield the validation on an adapter's directory, or on each adapter of a prefix, by name.

    Reads every byte, so that checksums are verified. Raises UsageError where `path` cannot be read.
    """
    try:
        names = sorted(scan(path, {}, Roots((path, *allow_symlinks_to))).names)
    except DiscoveryError as error:
        raise UsageError(error.message) from error
    is_adapter = not names or any((path / filename).exists() for filename in _ADAPTER_FILES)
    directories = [path.absolute()] if is_adapter else [path / name for name in names]
    collisions = NameCollisions(() if is_adapter else names)
    for directory in directories:
        name = directory.name
        if others := collisions.of(name, names.__contains__):
            yield Validation(
                printable(name), directory, AdapterState.REJECTED, collision_reason(name, others[0])
            )
            continue
        found = inspect_adapter(
            directory, allow_pickle=allow_pickle, allow_symlinks_to=allow_symlinks_to, with_revision=True
        )
        yield Validation(printable(name), directory, found.state, found.reason, found.revision, found.facts)
