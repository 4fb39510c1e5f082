"""Two functions for other programs: the complete, valid adapters under a prefix, by one scan.

The watcher does not use them: it repeats `watcher.prefix.scan`, and waits for copies to settle.
"""

import logging
import os
from collections.abc import Collection
from pathlib import Path

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.printable import printable
from loradrop.watcher.prefix.naming import NameCollisions, collision_reason, unusable
from loradrop.watcher.prefix.scan import scan
from loradrop.watcher.validation.inspection import inspect_adapter

_logger = logging.getLogger(__name__)


def discover_lora_adapters_from_prefix(dir_prefix: str | os.PathLike[str]) -> dict[str, str]:
    """Return the complete, valid adapters directly under `dir_prefix`: name -> absolute path, by name.

    An adapter that cannot be served is left out with a warning that says why; it never stops the others.
    Raises DiscoveryError where the prefix is missing, not a directory, or not readable.

    This scans once and does not wait for copies under way to settle; the watcher does.

    >>> discover_lora_adapters_from_prefix("/data/loras")  # doctest: +SKIP
    {'sql_adapter': '/data/loras/sql_adapter'}
    """
    return discover_new_lora_adapters_from_prefix(dir_prefix, ())


def discover_new_lora_adapters_from_prefix(
    dir_prefix: str | os.PathLike[str], existing_adapters: Collection[str]
) -> dict[str, str]:
    """Return the complete, valid adapters under `dir_prefix` whose names are not in `existing_adapters`.

    `existing_adapters` may be any collection of names, for example what an earlier call returned.
    Otherwise like `discover_lora_adapters_from_prefix`.
    """
    prefix = Path(dir_prefix).absolute()
    names = scan(prefix, {}, Roots((prefix,))).names
    collisions = NameCollisions(name for name in names if unusable(name) is None)
    found: dict[str, str] = {}
    for name in sorted(names):
        if name in existing_adapters:
            continue
        others = collisions.of(name, names.__contains__)
        inspection = inspect_adapter(prefix / name)
        reason = collision_reason(name, others[0]) if others else inspection.reason
        if inspection.state is AdapterState.READY and not others:
            found[name] = str(prefix / name)
        else:
            _logger.warning("Adapter is left out name=%s reason=%s", printable(name), printable(str(reason)))
    return found
