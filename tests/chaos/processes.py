"""The processes of a run that are killed and started again."""

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from tests.api.processes import ApiProcess
from tests.faults.watchers import QUICK


class Watchers:
    """Two watchers of one prefix: one leads, the other stands by."""

    def __init__(self, url: str, prefix: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "loradrop.watcher", "--redis-url", url, *QUICK]
        self._command += ["--lora-dir-prefix", str(prefix)]
        self._log = log.open("ab")
        self._children = [self._start(), self._start()]

    @property
    def pids(self) -> list[int]:
        """Their process ids, also of one that is killed."""
        return [child.pid for child in self._children]

    def kill(self, number: int) -> None:
        self._children[number].kill()
        self._children[number].wait()

    def restart(self, number: int) -> None:
        self._children[number] = self._start()

    def pause(self, number: int) -> None:
        os.kill(self._children[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self._children[number].pid, signal.SIGCONT)

    def close(self) -> None:
        for number in range(len(self._children)):
            self.kill(number)
        self._log.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stderr=self._log)


class Api:
    """An API, on another port and with a log of its own after each start."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        self._redis_url, self._directory = redis_url, directory
        self._starts = count(1)
        self._process = self._start()

    @property
    def url(self) -> str:
        return self._process.url

    @property
    def pid(self) -> int:
        """Its process id, also while it is killed."""
        return self._process.process.pid

    def kill(self) -> None:
        self._process.stop(signal.SIGKILL)

    def restart(self) -> None:
        self._process = self._start()

    def close(self) -> None:
        self.kill()

    def _start(self) -> ApiProcess:
        log = self._directory / f"api-{next(self._starts)}.log"
        return ApiProcess(log, "--redis-url", self._redis_url)
