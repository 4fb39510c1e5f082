"""What end-to-end tests share: the tiny model, adapters for it, and one all-in-one server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.servers import free_port
from testkit.tiny_model import build_tiny_model
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, Server, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model's directory."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="package")
def all_in_one(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["AllInOne"]:
    """`loradrop serve` with nothing but a prefix: Valkey, watcher and API are its children."""
    directory = tmp_path_factory.mktemp("all_in_one")
    prefix = Prefix(directory / "loras")
    api_port = free_port()
    command = [
        *("loradrop.cli", "serve", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS, "--api-port", str(api_port)),
        *("--lora-dir-prefix", str(prefix.directory), "--allow-symlinks-to", str(directory / "elsewhere")),
    ]
    with running(command, directory=directory, name="all_in_one") as server:
        yield AllInOne(server, prefix, f"http://127.0.0.1:{api_port}")


class AllInOne:
    """The server, the prefix it serves, and its API."""

    def __init__(self, server: Server, prefix: Prefix, api_url: str) -> None:
        self.server = server
        self.prefix = prefix
        self.api_url = api_url

    def wait_listed(self, name: str) -> None:
        """Wait until `name` is in `/v1/models`."""
        models = self.server.models
        wait_until_sync(lambda: name in models(), timeout=10, description=f"{name} is listed")

    def wait_gone(self, name: str) -> None:
        models = self.server.models
        wait_until_sync(lambda: name not in models(), timeout=10, description=f"{name} is not listed")

    def reason(self, name: str) -> str:
        """Return why `name` is not served, once the worker has observed what is in the prefix now."""
        self.server.client.post("/v1/refresh_lora_discovery", json={"timeout": 30}).raise_for_status()
        reason = self.server.client.get(f"/v1/lora_adapters/{name}").json()["reason"]
        return f"{reason['code']}: {reason['message']}"

    def wait_answer(self, name: str, tokens: list[int]) -> None:
        """Wait until `name` answers with `tokens`."""
        wait_until_sync(
            lambda: self.server.ask(name).tokens == tokens, timeout=10, description=f"{name} has changed"
        )
