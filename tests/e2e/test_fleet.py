"""Two workers on one Redis, a watcher that only looks when it is asked to, and an API: a fleet, small."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testkit.servers import ValkeyServer, free_port, valkey
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, Server, start
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix

pytestmark = pytest.mark.e2e


class Fleet:
    """The Redis, watcher and API of a fleet; workers join it."""

    def __init__(self, directory: Path, tiny_model: Path, redis: ValkeyServer) -> None:
        self.directory = directory
        self.prefix = Prefix(directory / "loras")
        self.redis = redis
        self.api_port = free_port()
        self._model = tiny_model
        self._workers: list[Server] = []
        shared = ["--redis-url", redis.url]
        silent = ["--notifier", "none", "--lora-discovery-interval", "0"]
        self._watcher = self._run(
            "loradrop.watcher", *shared, *silent, "--lora-dir-prefix", str(self.prefix.directory)
        )
        self._api = self._run("loradrop.api", *shared, "--port", str(self.api_port))

    def start_worker(self, name: str) -> Server:
        """Start a worker, and do not wait until it is ready."""
        command = [
            *("loradrop.worker", "--model", str(self._model), *TINY_FLAGS, *LORA_FLAGS, "--worker-id", name),
            *("--redis-url", self.redis.url, "--lora-dir-prefix", str(self.prefix.directory)),
        ]
        worker = start(command, directory=self.directory, name=f"{name}-{len(self._workers)}")
        self._workers.append(worker)
        return worker

    def refresh(self) -> dict[str, object]:
        """Refresh through the API, and return its answer."""
        response = httpx.post(
            f"http://127.0.0.1:{self.api_port}/v1/refresh_lora_discovery", json={}, timeout=60
        )
        body: dict[str, object] = response.json()
        return body

    def is_up(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.api_port}/readyz").is_success
        return False

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        for process in (self._watcher, self._api):
            process.terminate()
            process.wait()

    def _run(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{module}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=subprocess.STDOUT
            )


@pytest.fixture
def fleet(tiny_model: Path, tmp_path: Path) -> Iterator[Fleet]:
    redis_directory = tmp_path / "redis"
    redis_directory.mkdir()
    with valkey(redis_directory) as redis:
        fleet = Fleet(tmp_path, tiny_model, redis)
        try:
            wait_until_sync(fleet.is_up, timeout=30, description="the fleet's API is ready")
            yield fleet
        finally:
            fleet.stop()


def test_workers_started_before_and_after_a_drop_list_and_serve_the_same(fleet: Fleet) -> None:
    early = fleet.start_worker("early")
    early.wait_ready()
    fleet.prefix.copy_in("first", seed=1)
    fleet.prefix.rename_in("second", seed=2)
    assert early.models() == {"tiny"}

    refreshed = fleet.refresh()

    assert refreshed["status"] == "converged"
    assert refreshed["discovered_adapters"] == ["first", "second"]
    assert refreshed["message"] == (
        "Successfully refreshed LoRA discovery. Found 2 total adapters, 2 newly discovered."
    )
    assert early.models() == {"tiny", "first", "second"}
    references = {name: early.ask(name).tokens for name in ("tiny", "first", "second")}

    late = fleet.start_worker("late")
    late.wait_ready()
    assert late.models() == early.models()
    assert {name: late.ask(name).tokens for name in references} == references

    early.kill()
    assert {name: late.ask(name).tokens for name in references} == references

    again = fleet.start_worker("early")
    again.wait_ready()
    assert again.models() == late.models()
    assert {name: again.ask(name).tokens for name in references} == references

    through_the_worker = again.client.post("/v1/refresh_lora_discovery", json={}).json()
    assert through_the_worker["status"] == "converged"
    assert through_the_worker["workers"]["total"] == 2
    assert through_the_worker["discovered_adapters"] == []

    fleet.redis.kill()
    assert {name: late.ask(name).tokens for name in references} == references
    unavailable = late.client.post("/v1/refresh_lora_discovery", json={})
    assert unavailable.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert int(unavailable.headers["Retry-After"]) > 0
    fleet.redis.start()
    wait_until_sync(fleet.is_up, timeout=30, description="the fleet is whole again")
    fleet.prefix.rename_in("third", seed=3)
    assert "third" in str(fleet.refresh()["discovered_adapters"])
    assert "third" in late.models()
    assert {name: late.ask(name).tokens for name in references} == references
