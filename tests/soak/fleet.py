"""The processes under load: a Valkey, a watcher, an API and a real vLLM worker, and what they answer."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from loradrop.catalog.redis_keys import Keys
from testkit.servers import ValkeyServer, valkey
from testkit.tiny_model import build_tiny_model
from testkit.vllm_server import TINY_FLAGS, Server, start
from testkit.waiting import wait_until_sync
from tests.api.processes import ApiProcess, api_process
from tests.soak.samples import Sample, weigh_processes, weigh_redis, weigh_store

IN_ENGINE = 8
"""Adapters vLLM keeps in memory; another one that is asked for takes the place of the least recently used."""

_LORA_FLAGS = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"]
_STORE_GIB = 0.004
"""Of the private store: 4 MB, so that eviction from it is part of the load."""
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Fleet:
    """What runs, and what it says of itself over HTTP."""

    directory: Path
    prefix: Path
    server: ValkeyServer
    redis: "redis.Redis[str]"
    watcher: "subprocess.Popen[bytes]"
    api: ApiProcess
    worker: Server | None
    http: httpx.Client

    @property
    def epoch(self) -> str | None:
        """Which catalog it is: a new one makes every worker list again."""
        return self.redis.hget(Keys().meta, "epoch")

    def revisions(self) -> dict[str, str | None]:
        """Return the revision of each name, as the API lists them."""
        rows: list[dict[str, Any]] = self._ask("/v1/lora_adapters")["data"]
        return {row["id"]: row["revision"] for row in rows}

    def loads(self) -> int:
        """Return how many revisions the worker has brought to its engine."""
        return int(self._metric(r'loradrop_loads_total\{[^}]*outcome="loaded"[^}]*\} (\S+)'))

    def in_engine(self) -> int:
        """Return how many revisions the worker has in its engine."""
        return int(self._metric(r"loradrop_resident_revisions(?:\{[^}]*\})? (\S+)"))

    def until_at_rest(self) -> None:
        """Wait until the worker has applied the whole catalog and unloaded what it replaced or evicted."""
        wait_until_sync(self._is_at_rest, timeout=_PATIENCE_SECONDS, description="the fleet is at rest")

    def weigh(self) -> Sample:
        """Return what everything holds now."""
        pids = {"watcher": self.watcher.pid, "api": self.api.process.pid}
        if self.worker is None:
            return weigh_processes(pids) | weigh_redis(self.redis)
        pids["vllm api"] = self.worker.process.pid
        for child in psutil.Process(self.worker.process.pid).children(recursive=True):
            if child.num_threads() > 1:  # multiprocessing's resource tracker is no part of the server
                pids["vllm engine"] = child.pid
        return weigh_processes(pids) | weigh_redis(self.redis) | weigh_store(self.directory / "store")

    def _is_at_rest(self) -> bool:
        if self.worker is None:
            return True
        workers = self._ask("/v1/lora_workers")["data"]
        is_in_step = [(worker["lag"], worker["adapters"]["loading"]) for worker in workers] == [(0, 0)]
        return is_in_step and self.in_engine() <= IN_ENGINE

    def _ask(self, path: str) -> Any:
        return self.http.get(f"{self.api.url}{path}").raise_for_status().json()

    def _metric(self, pattern: str) -> float:
        assert self.worker is not None
        text = self.worker.client.get("/metrics").text
        return sum(float(value) for value in re.findall(f"^{pattern}", text, re.MULTILINE))


@contextmanager
def running_fleet(directory: Path, *, with_worker: bool) -> Iterator[Fleet]:
    """Run a fleet for the length of the block; every process it started has ended after it."""
    prefix, data = directory / "prefix", directory / "redis"
    prefix.mkdir()
    data.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(valkey(data))
        client = stack.enter_context(redis.Redis.from_url(server.url, decode_responses=True))
        watcher = stack.enter_context(_watcher(server.url, prefix, directory / "watcher.log"))
        api = stack.enter_context(api_process(directory / "api.log", "--redis-url", server.url))
        worker = stack.enter_context(_worker(directory, server.url, prefix)) if with_worker else None
        http = stack.enter_context(httpx.Client(timeout=_PATIENCE_SECONDS))
        wait_until_sync(
            lambda: http.get(f"{api.url}/readyz").is_success,
            timeout=_PATIENCE_SECONDS,
            description="there is a catalog",
        )
        yield Fleet(directory, prefix, server, client, watcher, api, worker, http)
        assert watcher.poll() is None, "the watcher ended"


@contextmanager
def _watcher(url: str, prefix: Path, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-m", "loradrop.watcher", "--redis-url", url, "--lora-dir-prefix", str(prefix)]
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@contextmanager
def _worker(directory: Path, url: str, prefix: Path) -> Iterator[Server]:
    model = build_tiny_model(directory / "model")
    command = [
        *("loradrop.worker", "--model", str(model), *TINY_FLAGS, *_LORA_FLAGS),
        *("--max-cpu-loras", str(IN_ENGINE), "--redis-url", url, "--lora-dir-prefix", str(prefix)),
        *("--lora-cache-dir", str(directory / "store"), "--lora-cache-size", str(_STORE_GIB)),
    ]
    # The engine is a process of its own, as it is by default: each of the two is weighed.
    worker = start(command, directory=directory, name="worker", VLLM_ENABLE_V1_MULTIPROCESSING="1")
    try:
        worker.wait_ready()
        yield worker
        worker.stop()  # a server that is killed leaves shared memory behind
    finally:
        worker.kill()
