"""A real vLLM server on the CPU, as a child process, and a client that asks it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import httpx
import psutil

from testkit.servers import free_port
from testkit.waiting import wait_until_sync

READY_SECONDS = 180.0
PROMPT = "hello world, the quick brown fox"

TINY_FLAGS = [
    *("--served-model-name", "tiny", "--max-model-len", "512", "--dtype", "float32", "--enforce-eager"),
    *("--kv-cache-memory-bytes", "67108864", "--block-size", "32", "--disable-uvicorn-access-log"),
]
"""What lets the tiny model start in half a minute."""

LORA_FLAGS = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "8"]


@dataclass
class Answer:
    """What came back for one completion."""

    status: int
    body: dict[str, Any]
    headers: httpx.Headers

    @property
    def tokens(self) -> list[int]:
        tokens: list[int] = self.body["choices"][0]["token_ids"]
        return tokens

    @property
    def error(self) -> str:
        return str(self.body["error"]["message"])


@dataclass
class Server:
    """One running server. `ask` is one greedy completion."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"The server ended with {self.process.returncode}:\n{self.log[-6000:]}")
        try:
            return self.client.get("/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait_ready(self) -> None:
        wait_until_sync(self.is_ready, timeout=READY_SECONDS, description=f"ready: {self.log_path}")

    def ask(self, model: str, *, max_tokens: int = 8, prompt: str = PROMPT) -> Answer:
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        response = self.client.post("/v1/completions", json=body | {"return_token_ids": True})
        return Answer(response.status_code, response.json(), response.headers)

    def models(self) -> set[str]:
        return {card["id"] for card in self.client.get("/v1/models").json()["data"]}

    def stop(self) -> float:
        """End it as Ctrl-C in a service manager does, and return the seconds until nothing of it is left."""
        family = self._family()
        if self.process.poll() is None:
            self.process.terminate()
        seconds = wait_until_sync(
            lambda: self.process.poll() is not None, timeout=30, description="the server ends"
        )
        seconds += wait_until_sync(
            lambda: not any(_is_alive(pid) for pid in family), timeout=30, description="no process is left"
        )
        self.client.close()
        return seconds

    def kill(self) -> None:
        """End it at once, and vLLM's engine with it, which would otherwise stay."""
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def _family(self) -> list[int]:
        if self.process.poll() is not None:
            return []
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]


@contextmanager
def running(
    command: Sequence[str], *, directory: Path, name: str, cwd: Path | None = None, **environment: str
) -> Iterator[Server]:
    """Start `command` with a port, wait until it is ready, and end it after the block."""
    server = start(command, directory=directory, name=name, cwd=cwd, **environment)
    try:
        server.wait_ready()
        yield server
        server.stop()
    finally:
        server.kill()


def start(
    command: Sequence[str], *, directory: Path, name: str, cwd: Path | None = None, **environment: str
) -> Server:
    """Start `command` with a port in the directory `cwd`, and do not wait; logs go to `directory`."""
    port = free_port()
    log_path = directory / f"{name}.log"
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",  # the engine need not import everything once more
        "XDG_CACHE_HOME": str(directory / "cache"),
        "XDG_STATE_HOME": str(directory / "state"),
        "VLLM_CACHE_ROOT": str(Path(gettempdir()) / "loradrop-tests-vllm"),  # what it finds out about models
        "HF_HUB_OFFLINE": "1",
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_untraced(os.environ) | settings | environment,
            start_new_session=True,
            cwd=cwd,
        )
    return Server(process, port, log_path)


def _untraced(variables: Mapping[str, str]) -> dict[str, str]:
    """Return `variables` without those that let coverage trace a child: vLLM would import half as fast."""
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE_PROCESS")}


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
