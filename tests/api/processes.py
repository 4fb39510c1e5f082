"""A real API process, as an operator starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from testkit.servers import free_port
from testkit.waiting import wait_until_sync


class ApiProcess:
    """`python -m api` on a free loopback port; what it logs is in `log`."""

    def __init__(self, log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = log
        own = {name: value for name, value in os.environ.items() if not name.startswith("LORADROP_")}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loradrop.api", "--port", str(self.port), *arguments],
                env=own | dict(environment or {}),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until_alive(self) -> None:
        wait_until_sync(self._is_alive, timeout=60, description="the API answers /healthz")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; raises TimeoutExpired where it does not end at all."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def _is_alive(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


@contextmanager
def api_process(
    log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[ApiProcess]:
    """Run an API for the length of the block."""
    api = ApiProcess(log, *arguments, environment=environment)
    try:
        api.wait_until_alive()
        yield api
    finally:
        if api.process.poll() is None:
            api.stop()
