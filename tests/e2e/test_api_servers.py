"""Several API processes over one engine: each follows the catalog itself, and all say the same."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.prefix import Prefix
from tests.e2e.server import LORA_FLAGS, PROMPT, TINY_FLAGS, running
from tests.servers import free_port
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.e2e

NAMES = [f"tenant-{number}" for number in range(6)]


def test_two_api_processes_never_answer_with_another_adapter(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix(tmp_path / "loras")
    for number, name in enumerate(NAMES):
        prefix.rename_in(name, seed=number + 1)
    api_port = free_port()
    command = [
        *("worker", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS, "--api-server-count", "2"),
        *("--lora-dir-prefix", str(prefix.directory), "--api-port", str(api_port)),
    ]
    with running(command, directory=tmp_path, name="two", VLLM_ENABLE_V1_MULTIPROCESSING="1") as server:
        url = f"http://127.0.0.1:{server.port}"

        def workers() -> int:
            return len(httpx.get(f"http://127.0.0.1:{api_port}/v1/lora_workers").json()["data"])

        wait_until_sync(lambda: workers() == 2, timeout=30, description="both processes report")
        references = {name: server.ask(name).tokens for name in ["tiny", *NAMES]}
        assert len({tuple(tokens) for tokens in references.values()}) == len(references)

        def ask(number: int) -> str:
            name = NAMES[number % len(NAMES)]
            body = {
                "model": name,
                "prompt": PROMPT,
                "max_tokens": 8,
                "temperature": 0,
                "return_token_ids": True,
            }
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)  # a connection of its own
            if answer.status_code != httpx.codes.OK:
                return f"status {answer.status_code}"
            return "right" if answer.json()["choices"][0]["token_ids"] == references[name] else "wrong"

        with ThreadPoolExecutor(8) as pool:
            outcomes = Counter(pool.map(ask, range(300)))
            listings = set(pool.map(lambda _: len(httpx.get(f"{url}/v1/models").json()["data"]), range(20)))

        assert outcomes == {"right": 300}
        assert listings == {1 + len(NAMES)}
