"""The two servers a benchmark compares, driven as operators and clients drive them."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from bench.support.catalog import BenchCatalog
from testkit.vllm_server import Server
from testkit.waiting import wait_until

_LOOK_SECONDS = 0.05
"""Between two looks at what loradrop has done, which must not be what a running stream notices."""


class Stock:
    """vLLM alone: adapters are loaded from local disk by its own route."""

    def __init__(self, server: Server, prefix: Path) -> None:
        """Drive `server`, whose adapters lie under `prefix`."""
        self.client = httpx.AsyncClient(base_url=server.client.base_url, timeout=120)
        self.process = psutil.Process(server.process.pid)
        self._prefix = prefix

    async def load(self, name: str, directory: Path | None = None) -> None:
        """Make `name` answer its first request, from `directory` or the prefix."""
        await self._by_hand(name, directory or self._prefix / name, in_place=False)
        await ask(self.client, name)

    async def update(self, name: str, path: str) -> None:
        """Let `name` answer with what lies at `path`."""
        await self._by_hand(name, self._prefix / path, in_place=True)
        await ask(self.client, name)

    async def remove(self, name: str) -> None:
        """Let `name` answer no more."""
        (await self.client.post("/v1/unload_lora_adapter", json={"lora_name": name})).raise_for_status()

    async def _by_hand(self, name: str, path: Path, *, in_place: bool) -> None:
        body = {"lora_name": name, "lora_path": str(path), "load_inplace": in_place}
        (await self.client.post("/v1/load_lora_adapter", json=body)).raise_for_status()


class Loradrop:
    """vLLM with loradrop: adapters are published, and loaded by their first request."""

    def __init__(self, server: Server, catalog: BenchCatalog) -> None:
        """Drive `server`, which follows `catalog`."""
        self.client = httpx.AsyncClient(base_url=server.client.base_url, timeout=120)
        self.process = psutil.Process(server.process.pid)
        self.catalog = catalog

    async def publish(self, name: str) -> None:
        """Publish `name` and wait until it is listed: what goes on before the first request."""
        await self.catalog.publish(name)
        await self.until_listed(name)

    async def load(self, name: str) -> None:
        """Make `name` answer its first request."""
        await self.publish(name)
        await ask(self.client, name)

    async def update(self, name: str, path: str) -> None:
        """Let `name` answer with what lies at `path`, and wait until it does."""
        before = await self.loads()
        await self.catalog.publish_at(name, path)

        async def has_loaded() -> bool:
            await asyncio.sleep(_LOOK_SECONDS)
            return await self.loads() > before

        await wait_until(has_loaded, timeout=60, description=f"{name} is updated")
        await ask(self.client, name)

    async def remove(self, name: str) -> None:
        """Let `name` answer no more."""
        await self.catalog.withdraw(name)
        await self._until(lambda names: name not in names)

    async def loads(self) -> float:
        """Return how many adapters have been brought to the engine."""
        text = (await self.client.get("/metrics")).text
        counts = [line for line in text.splitlines() if line.startswith("loradrop_loads_total")]
        return sum(float(line.split()[-1]) for line in counts)

    async def add_many(self, count: int, like: str) -> None:
        """Add `count` names to the catalog, and wait until all are listed."""
        names = [f"many-{count}-{number}" for number in range(count)]
        await self.catalog.publish_many(names, like)
        await self.until_listed(names[-1])

    async def until_listed(self, *names: str) -> None:
        """Wait until all of `names` are listed."""
        await self._until(lambda listed: listed.issuperset(names))

    async def _until(self, is_so: Callable[[set[str]], bool]) -> None:
        async def is_listed() -> bool:
            await asyncio.sleep(_LOOK_SECONDS)
            cards = (await self.client.get("/v1/models")).json()["data"]
            return is_so({card["id"] for card in cards})

        await wait_until(is_listed, timeout=60, description="the catalog is listed")


async def ask(client: httpx.AsyncClient, model: str) -> float:
    """Return the seconds one token takes."""
    started = time.perf_counter()
    body = {"model": model, "prompt": "hello", "max_tokens": 1}
    (await client.post("/v1/completions", json=body)).raise_for_status()
    return time.perf_counter() - started
