"""Several API processes over one engine: each follows the catalog itself, and all say the same."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from testkit.servers import free_port
from testkit.vllm_server import LORA_FLAGS, PROMPT, TINY_FLAGS, Server, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix

pytestmark = pytest.mark.e2e

NAMES = [f"tenant-{number}" for number in range(6)]


REQUESTS = 400


@pytest.mark.timeout(600)  # two minutes where others share the machine
def test_two_api_processes_never_answer_with_another_adapter(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix(tmp_path / "loras")
    for number, name in enumerate(NAMES):
        prefix.rename_in(name, seed=number + 1)
    api_port = free_port()
    command = [
        *("loradrop.worker", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS, "--max-cpu-loras", "16"),
        *("--api-server-count", "2"),
        *("--lora-dir-prefix", str(prefix.directory), "--api-port", str(api_port)),
    ]

    def workers() -> set[str]:
        with suppress(httpx.TransportError):  # the API may begin to listen after the server
            answer = httpx.get(f"http://127.0.0.1:{api_port}/v1/lora_workers")
            if answer.status_code == httpx.codes.OK:
                return {worker["id"] for worker in answer.json()["data"]}
        return set()

    references: dict[str, list[int]] = {}
    for life in ("first", "second"):
        with running(command, directory=tmp_path, name=life, VLLM_ENABLE_V1_MULTIPROCESSING="1") as server:
            wait_until_sync(lambda: len(workers()) == 2, timeout=30, description="both processes report")
            references = references or {name: server.ask(name).tokens for name in ["tiny", *NAMES]}
            assert len({tuple(tokens) for tokens in references.values()}) == len(references)
            with ThreadPoolExecutor(8) as pool, client_of_both(server) as client:
                outcomes = Counter(pool.map(partial(ask, client, references), range(REQUESTS // 2)))
                listings = Counter(pool.map(lambda _, client=client: listed(client), range(20)))
            assert outcomes == {"right": REQUESTS // 2}
            assert listings == {1 + len(NAMES): 20}
            if life == "first":
                kill_one_api_process(server)


def client_of_both(server: Server) -> httpx.Client:
    """Return a client that opens a connection for each request, so that either process may get it."""
    none_kept = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=server.client.base_url, timeout=60, limits=none_kept)


def ask(client: httpx.Client, references: dict[str, list[int]], number: int) -> str:
    """Ask for one of the adapters, and judge the answer."""
    name = NAMES[number % len(NAMES)]
    body = {"model": name, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    answer = client.post("/v1/completions", json=body)
    if answer.status_code != httpx.codes.OK:
        return f"status {answer.status_code}"
    return "right" if answer.json()["choices"][0]["token_ids"] == references[name] else "wrong"


def listed(client: httpx.Client) -> int:
    """Return how many models one process lists."""
    return len(client.get("/v1/models").json()["data"])


def kill_one_api_process(server: Server) -> None:
    """Kill it as the kernel would; vLLM then ends the others, and the engine."""
    children = psutil.Process(server.process.pid).children()
    [one, *_] = [child for child in children if "APIServer" in " ".join(child.cmdline())]
    one.kill()
    server.process.wait(60)
