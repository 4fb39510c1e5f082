"""Two workers, one Redis, an API, and a watcher that scans only on request: what a fleet agrees on."""

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
        self._workers: dict[str, Server] = {}
        shared = ["--redis-url", redis.url]
        silent = ["--notifier", "none", "--lora-discovery-interval", "0"]
        self._watcher = self._run(
            "loradrop.watcher", *shared, *silent, "--lora-dir-prefix", str(self.prefix.directory)
        )
        self._api = self._run("loradrop.api", *shared, "--port", str(self.api_port))

    def worker(self, name: str) -> Server:
        """Return the living worker `name`; start it, and wait until it is ready, where there is none."""
        if name not in self._workers:
            self._workers[name] = self._start_worker(name)
            self._workers[name].wait_ready()
        return self._workers[name]

    def kill_worker(self, name: str) -> None:
        self._workers.pop(name).kill()

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
        for name in list(self._workers):
            self.kill_worker(name)
        for process in (self._watcher, self._api):
            process.terminate()
            process.wait()

    def _start_worker(self, name: str) -> Server:
        command = [
            *("loradrop.worker", "--model", str(self._model), *TINY_FLAGS, *LORA_FLAGS, "--worker-id", name),
            *("--redis-url", self.redis.url, "--lora-dir-prefix", str(self.prefix.directory)),
        ]
        return start(command, directory=self.directory, name=f"{name}-{free_port()}")

    def _run(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{module}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=subprocess.STDOUT
            )


@pytest.fixture(scope="module")
def fleet(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    with valkey(tmp_path_factory.mktemp("redis")) as redis:
        fleet = Fleet(directory, tiny_model, redis)
        try:
            wait_until_sync(fleet.is_up, timeout=30, description="the fleet's API is ready")
            yield fleet
        finally:
            fleet.stop()


@pytest.fixture(scope="module")
def references(fleet: Fleet) -> dict[str, list[int]]:
    """What a worker that ran before adapters were dropped answers for each model."""
    early = fleet.worker("early")
    fleet.prefix.copy_in("first", seed=1)
    fleet.prefix.rename_in("second", seed=2)
    assert fleet.refresh()["status"] == "converged"
    return answers(early, "tiny", "first", "second")


def answers(worker: Server, *names: str) -> dict[str, list[int]]:
    return {name: worker.ask(name).tokens for name in names}


def test_a_refresh_has_converged_when_every_running_worker_lists_what_was_dropped(fleet: Fleet) -> None:
    early = fleet.worker("early")
    fleet.prefix.copy_in("copied", seed=4)
    fleet.prefix.rename_in("renamed", seed=5)
    assert not {"copied", "renamed"} & early.models()

    refreshed = fleet.refresh()

    total = refreshed["total_adapters"]
    assert refreshed["status"] == "converged"
    assert refreshed["discovered_adapters"] == ["copied", "renamed"]
    assert refreshed["message"] == (
        f"Successfully refreshed LoRA discovery. Found {total} total adapters, 2 newly discovered."
    )
    assert {"copied", "renamed"} <= early.models()


def test_a_worker_started_after_the_drop_lists_and_serves_the_same(
    fleet: Fleet, references: dict[str, list[int]]
) -> None:
    late = fleet.worker("late")

    assert late.models() == fleet.worker("early").models()
    assert answers(late, *references) == references


def test_a_killed_worker_takes_nothing_from_another(fleet: Fleet, references: dict[str, list[int]]) -> None:
    late = fleet.worker("late")
    fleet.kill_worker("early")
    assert answers(late, *references) == references


def test_a_worker_started_again_under_its_id_lists_and_serves_the_same(
    fleet: Fleet, references: dict[str, list[int]]
) -> None:
    late = fleet.worker("late")
    fleet.worker("early")
    fleet.kill_worker("early")

    again = fleet.worker("early")

    assert again.models() == late.models()
    assert answers(again, *references) == references


def test_a_refresh_through_a_worker_waits_for_all_workers(
    fleet: Fleet, references: dict[str, list[int]]
) -> None:
    early = fleet.worker("early")
    fleet.worker("late")

    body = early.client.post("/v1/refresh_lora_discovery", json={}).json()

    assert body["status"] == "converged"
    assert body["workers"]["total"] == 2
    assert body["discovered_adapters"] == []


def test_while_redis_is_away_workers_serve_and_refuse_refreshes_and_follow_on_afterwards(
    fleet: Fleet, references: dict[str, list[int]]
) -> None:
    late = fleet.worker("late")
    fleet.redis.kill()
    try:
        assert answers(late, *references) == references
        unavailable = late.client.post("/v1/refresh_lora_discovery", json={})
        assert unavailable.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(unavailable.headers["Retry-After"]) > 0
    finally:
        fleet.redis.start()
    wait_until_sync(fleet.is_up, timeout=30, description="the fleet is whole again")
    fleet.prefix.rename_in("third", seed=3)
    assert "third" in str(fleet.refresh()["discovered_adapters"])
    assert "third" in late.models()
    assert answers(late, *references) == references
