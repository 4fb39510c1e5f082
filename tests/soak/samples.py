"""What one moment of the fleet weighs: memory, threads and descriptors of each process, and Redis."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from loradrop.catalog.redis_keys import Keys


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that is measured again and again, as `watcher RSS` in `MiB`."""

    who: str
    what: str
    unit: str = ""


Sample = dict[Quantity, float]

_MIB = 1 << 20


def weigh_processes(pids: Mapping[str, int]) -> Sample:
    """Return what each process holds; USS only where this system lets it be read."""
    found: Sample = {}
    for who, pid in pids.items():
        process = psutil.Process(pid)
        found[Quantity(who, "RSS", "MiB")] = process.memory_info().rss / _MIB
        with suppress(psutil.AccessDenied):
            found[Quantity(who, "USS", "MiB")] = process.memory_full_info().uss / _MIB
        found[Quantity(who, "threads")] = process.num_threads()
        found[Quantity(who, "descriptors")] = process.num_fds()
    return found


def weigh_redis(client: "redis.Redis[str]") -> Sample:
    """Return what Redis holds once its allocator has given back what it can."""
    client.execute_command("MEMORY", "PURGE")
    memory: Any = client.info("memory")
    keys = Keys()
    return {
        Quantity("redis", "used memory", "MiB"): memory["used_memory"] / _MIB,
        Quantity("redis", "keys"): client.dbsize(),
        Quantity("redis", "clients"): len(client.client_list()),
        Quantity("redis", "events"): client.xlen(keys.events),
        Quantity("redis", "refreshes"): client.xlen(keys.refreshes),
        Quantity("redis", "adapters"): client.hlen(keys.adapters),
    }


def weigh_store(directory: Path) -> Sample:
    """Return what a worker's private store holds on disk."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        Quantity("worker store", "files"): len(files),
        Quantity("worker store", "bytes", "MiB"): sum(path.stat().st_size for path in files) / _MIB,
    }
