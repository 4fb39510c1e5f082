"""The children of an embedded stack: commands that stand for them, and those that run."""

import contextlib
import os
from pathlib import Path

import psutil

from loradrop.worker.fleet.embedded import (
    Commands,
)
from loradrop.worker.settings import WorkerSettings
from testkit.waiting import wait_until

SLEEP = ["sleep", "300"]


class IdleCommands(Commands):
    """Children that do nothing stand for watcher and API."""

    def watcher(self, settings: WorkerSettings, redis_url: str) -> list[str]:
        return SLEEP

    def api(self, settings: WorkerSettings, redis_url: str, port: int) -> list[str]:
        return SLEEP


class DeadCommands(IdleCommands):
    """A Valkey that never answers."""

    def valkey(self, state: Path, port: int) -> list[str]:
        return SLEEP


def children_of(pid: int | None = None) -> dict[str, psutil.Process]:
    """Return the living children a stack has started for a process, by what they are."""
    found = {}
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            command = " ".join(child.cmdline())
            if os.getsid(child.pid) != child.pid:
                continue  # another test's: a stack gives its children sessions of their own
            for name in ("valkey-server", "-m loradrop.watcher", "-m loradrop.api", "sleep"):
                if name in command and child.status() != psutil.STATUS_ZOMBIE:
                    found[name] = child
    return found


async def until_running(*names: str) -> dict[str, psutil.Process]:
    await wait_until(lambda: set(names) <= set(children_of()), timeout=20, description=f"{names} run")
    return children_of()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
