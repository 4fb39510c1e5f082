"""More adapters than the engine has places, and a private store that is deleted under load."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from testkit.servers import free_port
from testkit.vllm_server import TINY_FLAGS, Server, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix

pytestmark = pytest.mark.e2e

PLACES = 4
NAMES = [f"a{number}" for number in range(9)]
LORA_FLAGS = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", str(PLACES)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def server(tiny_model: Path, place: Path) -> Iterator[Server]:
    """A server with four places for nine adapters, of which two have the same content."""
    prefix = Prefix(place / "loras")
    for seed, name in enumerate(NAMES):
        prefix.rename_in(name, seed=max(seed, 1))
    command = [
        *("loradrop.cli", "serve", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS, "--api-port", str(free_port())),
        *("--lora-dir-prefix", str(prefix.directory), "--lora-cache-dir", str(place / "cache")),
    ]
    with running(command, directory=place, name="places") as server:
        wait_until_sync(lambda: set(NAMES) <= set(server.models()), timeout=30, description="all are listed")
        yield server


def resident(server: Server) -> int:
    """Return how many revisions the worker says are in the engine."""
    text = server.client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("loradrop_resident_revisions ")]
    return round(float(line.split()[-1]))


def test_nine_adapters_asked_for_at_once_are_all_served_from_four_places(server: Server) -> None:
    with ThreadPoolExecutor(len(NAMES)) as clients:
        answers = list(clients.map(server.ask, NAMES * 2))
    assert {answer.status for answer in answers} == {httpx.codes.OK}
    for first, second in zip(answers, answers[len(NAMES) :], strict=False):
        assert first.tokens == second.tokens
    wait_until_sync(lambda: 0 < resident(server) <= PLACES, timeout=10, description="four are resident")


def test_a_store_deleted_under_load_kills_nothing_and_everything_is_served_again(
    server: Server, place: Path
) -> None:
    expected = {name: server.ask(name).tokens for name in NAMES}
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    stop = threading.Event()

    def keep_asking(names: list[str]) -> None:
        while not stop.is_set():
            for name in names:
                answer = server.ask(name)
                statuses[answer.status] += 1
                if answer.status == httpx.codes.OK and answer.tokens != expected[name]:
                    wrong.append(name)

    clients = [threading.Thread(target=keep_asking, args=(NAMES[number::3],)) for number in range(3)]
    for client in clients:
        client.start()
    for _ in range(5):
        done = statuses.total()
        wait_until_sync(lambda done=done: statuses.total() > done + 10, timeout=120, description="it is used")
        shutil.rmtree(place / "cache", ignore_errors=True)
    stop.set()
    for client in clients:
        client.join()

    wait_until_sync(
        lambda: all(server.ask(name).status == httpx.codes.OK for name in NAMES),
        timeout=60,
        description="everything is served again",
    )
    assert {name: server.ask(name).tokens for name in NAMES} == expected
    assert wrong == []
    assert set(statuses) <= {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.CONFLICT}
    assert server.process.poll() is None
    assert "EngineDeadError" not in server.log
