"""Public names in all that comes out of the server, while an adapter is updated: metrics, KV events, log."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zmq

from testkit.servers import free_port
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, Server, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix

pytestmark = pytest.mark.e2e

INNER_NAME = re.compile(r"@[0-9a-f]{12}-[0-9a-f]{16}")
LONG_PROMPT = "the quick brown fox jumps over the lazy dog " * 12
"""Some blocks of the KV cache."""


class KvEvents:
    """What the engine publishes of its KV cache, as a router reads it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.texts: list[str] = []
        self.names: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "KvEvents":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.connect(f"tcp://127.0.0.1:{self.port}")
            socket.subscribe("")
            while not self._stop.is_set():
                if socket.poll(100):
                    _, _, payload = socket.recv_multipart()
                    self._take(msgspec.msgpack.decode(payload))

    def _take(self, batch: Any) -> None:
        text = repr(batch)
        self.texts.append(text)
        self.names |= {name for name in ("idle", "updated") if f"'{name}'" in text}


@pytest.fixture(scope="module")
def events() -> Iterator[KvEvents]:
    with KvEvents() as events:
        yield events


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    prefix = Prefix(tmp_path_factory.mktemp("public") / "loras")
    prefix.rename_in("idle", seed=1)
    prefix.rename_in("updated", seed=2)
    return prefix


@pytest.fixture(scope="module")
def server(tiny_model: Path, prefix: Prefix, events: KvEvents) -> Iterator[Server]:
    """A server whose engine, in a process of its own, publishes KV events, and which logs requests."""
    directory = prefix.directory.parent
    publishing = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events.port}",
    }
    command = [
        *("loradrop.cli", "serve", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS, "--api-port", str(free_port())),
        *("--lora-dir-prefix", str(prefix.directory), "--kv-events-config", json.dumps(publishing)),
        *("--enable-prefix-caching", "--enable-log-requests", "--lora-settle", "0.2"),
    ]
    engine = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    with running(command, directory=directory, name="public", **engine) as server:
        wait_until_sync(
            lambda: {"idle", "updated"} <= server.models(), timeout=30, description="both are listed"
        )
        yield server


def samples(server: Server, metric: str) -> list[str]:
    lines = server.client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith(f"{metric}{{")]


def test_all_that_comes_out_names_adapters_as_clients_do_while_one_is_updated(
    server: Server, prefix: Prefix, events: KvEvents
) -> None:
    def ask(name: str, number: int) -> list[int]:
        return server.ask(name, prompt=f"{number} {LONG_PROMPT}").tokens

    assert ask("idle", 0)
    before = ask("updated", 0)
    seen: set[str] = set()
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            body = {"model": "updated", "prompt": "hello", "max_tokens": 200, "min_tokens": 200}
            server.client.post("/v1/completions", json=body)

    streaming = threading.Thread(target=stream)
    streaming.start()
    try:
        for seed in (3, 4, 5):
            prefix.rename_in("updated", seed=seed)
            wait_until_sync(
                lambda old=before: ask("updated", 0) != old, timeout=60, description="it is updated"
            )
            before = ask("updated", 0)
            (sample,) = samples(server, "vllm:lora_requests_info")
            seen.add(sample.rpartition(" ")[0])
    finally:
        stop.set()
        streaming.join()

    assert any('running_lora_adapters="updated"' in sample for sample in seen)
    (info,) = samples(server, "loradrop_lora_requests_info")
    assert 'max_lora="8",running_lora_adapters="updated,idle",waiting_lora_adapters=""' in info
    loaded = samples(server, "loradrop_lora_adapter_loaded")
    assert [re.findall(r'adapter_name="(\w+)"', line) for line in loaded] == [["updated"], ["idle"]]
    wait_until_sync(lambda: events.names == {"idle", "updated"}, timeout=10, description="events name both")
    assert "lora_name='updated'" in server.log, "requests are logged"
    said = "\n".join([server.client.get("/metrics").text, server.log, *events.texts])
    assert INNER_NAME.findall(said) == []
    assert server.client.get("/health").status_code == httpx.codes.OK
