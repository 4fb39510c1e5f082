"""What loading, updating and removing adapters costs running streams and first requests.

Two servers of the same random model (16 layers of 1024, adapters of 37 MB) take turns in one run: vLLM as it
is, with its `/v1/load_lora_adapter`, and vLLM with loradrop. Times on a shared machine mean little; the
ratios between the two are what to look at.
"""

import asyncio
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from bench.scan import watcher
from bench.support.catalog import BenchCatalog
from bench.support.gaps import Gaps
from bench.support.model import build_model, write_adapter
from bench.support.sides import Loradrop, Stock, ask
from bench.support.tables import ratio, show_ratios
from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.store import Connection
from testkit.servers import valkey
from testkit.vllm_server import Server, start

LOST = ("lost-0", "lost-1", "lost-2")
GAPS_HEAD = "| meanwhile | server | tokens | p50 | p99 | max | max / quiet max |\n" + "|---" * 7 + "|"
ROUNDS = 9
COLD = 12
QUIET_TOKENS = 60
MANY = 1_000
VERY_MANY = 10_000
LISTINGS = 30
FLAGS = [
    *("--served-model-name", "base", "--max-model-len", "2048", "--dtype", "bfloat16", "--enforce-eager"),
    *("--kv-cache-memory-bytes", "536870912", "--block-size", "32", "--disable-uvicorn-access-log"),
    *("--enable-lora", "--max-lora-rank", "64", "--max-loras", "2", "--max-cpu-loras", "8"),
]


async def lost_prefix(ours: Loradrop, prefix: Path, redis_url: str) -> None:
    """Print the gaps of an adapter's stream while a watcher finds the prefix deleted, garbage, or hanging."""
    for number, name in enumerate(LOST):
        write_adapter(prefix / name, seed=number)
    kept = prefix.with_name("kept")
    gaps = Gaps(ours.client, LOST[0])
    with watcher(prefix, redis_url, "--lora-discovery-interval", "1", "--mass-removal-grace", "600"):
        await ours.until_listed(*LOST)
        await ask(ours.client, LOST[0])
        async with gaps.running() as running:
            await running.quiet(QUIET_TOKENS)
            prefix.rename(kept)
            await running.quiet(QUIET_TOKENS, "prefix gone")
            write_garbage(prefix)
            await running.quiet(QUIET_TOKENS, "prefix of garbage")
            for name in LOST:
                (prefix / name / CONFIG_FILENAME).unlink()
                os.mkfifo(prefix / name / CONFIG_FILENAME)
            await running.quiet(QUIET_TOKENS, "prefix that hangs")
        await ask(ours.client, LOST[0])
    shutil.rmtree(prefix)
    shutil.rmtree(kept)
    print("\n## Gaps between an adapter's tokens while its prefix is lost, ms\n")
    print(GAPS_HEAD)
    for phase, seconds in gaps.seconds.items():
        print(row(phase, "loradrop", sorted(seconds), max(gaps.seconds["quiet"])))


def write_garbage(prefix: Path) -> None:
    """Write what looks like the adapters, and is not."""
    for name in LOST:
        (prefix / name).mkdir(parents=True)
        (prefix / name / CONFIG_FILENAME).write_bytes(os.urandom(1_000))
        (prefix / name / WeightsFormat.SAFETENSORS.filename).write_bytes(os.urandom(1_000_000))


async def streams(stock: Stock, ours: Loradrop) -> None:
    """Print the gaps of a running stream, by what goes on meanwhile."""
    gaps = {"stock": Gaps(stock.client, "base"), "loradrop": Gaps(ours.client, "base")}
    for number in range(ROUNDS):
        for name, side in (("stock", stock), ("loradrop", ours)):
            adapter = f"stream-{number}"
            async with gaps[name].running() as running:
                await running.quiet(QUIET_TOKENS)
                for phase, work in phases(side, adapter):
                    async with running.during(phase):
                        await work()
    async with gaps["loradrop"].running() as running, running.during(f"{MANY} more in the catalog"):
        await ours.add_many(MANY, like="stream-0")
    print("\n## Gaps between a stream's tokens, ms\n")
    print(GAPS_HEAD)
    quiet = {name: max(found.seconds["quiet"]) for name, found in gaps.items()}
    for phase in gaps["loradrop"].seconds:
        for name, found in gaps.items():
            if seconds := sorted(found.seconds.get(phase, [])):
                print(row(phase, name, seconds, quiet[name]))
    print(f"\n## Longest gap between a stream's tokens, medians of {ROUNDS} times, ms\n")
    print("| meanwhile | stock | loradrop | median ratio, pair by pair |\n|---|---|---|---|")
    for phase in ("load", "update", "remove"):
        longest = {name: found.longest[phase] for name, found in gaps.items()}
        a, b = (1000 * statistics.median(longest[name]) for name in ("stock", "loradrop"))
        print(f"| {phase} | {a:.0f} | {b:.0f} | {ratio(longest['loradrop'], longest['stock']):.2f} |")


def phases(side: Stock | Loradrop, adapter: str) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """Return what is done to one adapter while the stream runs."""
    return [
        ("load", lambda: side.load(adapter)),
        ("update", lambda: side.update(adapter, f"{adapter}-new")),
        ("remove", lambda: side.remove(adapter)),
    ]


def row(phase: str, name: str, seconds: list[float], quiet: float) -> str:
    """Return one line of the table of gaps."""
    p50, p99, most = statistics.median(seconds), seconds[math.ceil(0.99 * len(seconds)) - 1], seconds[-1]
    figures = " | ".join(f"{1000 * value:.0f}" for value in (p50, p99, most))
    return f"| {phase} | {name} | {len(seconds)} | {figures} | {most / quiet:.2f} |"


async def first_requests(stock: Stock, ours: Loradrop, prefix: Path, resolved: Path) -> None:
    """Print what the first request for a cold adapter costs, against a copy and vLLM's own ways to load."""
    by_hand = resolved.with_name("by-hand")

    async def ask_after_load(name: str) -> None:
        copy_to_disk(prefix / name, by_hand / name)
        await stock.load(f"{name}-by-hand", by_hand / name)

    async def ask_resolver(name: str) -> None:
        copy_to_disk(prefix / name, resolved / name)
        await ask(stock.client, name)

    async def ask_ours(name: str) -> None:
        await ask(ours.client, name)

    ways = {
        "vLLM: copy to local disk, load by hand, ask": ask_after_load,
        "vLLM: copy to local disk, ask its filesystem resolver": ask_resolver,
        "loradrop: ask": ask_ours,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(COLD):
        name = f"cold-{number}"
        await ours.publish(name)
        for step in range(len(ways)):
            way = list(ways)[(number + step) % len(ways)]  # none always comes first
            started = time.perf_counter()
            await ways[way](name)
            seconds[way].append(time.perf_counter() - started)
        await stock.remove(f"{name}-by-hand")
        await stock.remove(name)
        await ours.remove(name)
    show_ratios("First request for a cold adapter of 37 MB, one token", seconds, *list(ways)[:2])


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy an adapter and make it durable, as a downloader must."""
    shutil.copytree(source, target)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


async def listings(stock: Stock, ours: Loradrop) -> None:
    """Print what 10 000 adapters in the catalog cost `/v1/models` and the API process."""
    few = await listing_ms(stock)
    loads, memory = await ours.loads(), ours.process.memory_info().rss
    await ours.add_many(VERY_MANY - MANY, like="stream-0")
    many = await listing_ms(ours)
    grown = ours.process.memory_info().rss - memory
    print(f"\n## `/v1/models` with {VERY_MANY} adapters\n")
    print(
        "| vLLM's own, base model alone, median ms | loradrop, median ms | API process grew by, MB | loads |"
    )
    print("|---|---|---|---|")
    print(f"| {few:.1f} | {many:.1f} | {grown / 1e6:.0f} | {await ours.loads() - loads:.0f} |")


async def listing_ms(side: Stock | Loradrop) -> float:
    """Return the median milliseconds of one listing."""
    taken = []
    for _ in range(LISTINGS):
        started = time.perf_counter()
        (await side.client.get("/v1/models")).raise_for_status()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


def write_adapters(prefix: Path, model: Path) -> None:
    """Write every adapter the benchmark uses, trained on `model`, as vLLM's resolver insists."""
    names = [f"stream-{number}{suffix}" for number in range(ROUNDS) for suffix in ("", "-new")]
    for seed, name in enumerate([*names, *(f"cold-{number}" for number in range(COLD))]):
        write_adapter(prefix / name, seed=seed, base_model_name_or_path=str(model))


def start_servers(stack: ExitStack, directory: Path, redis_url: str, prefix: Path) -> tuple[Server, Server]:
    """Start both servers, for what lies in `directory`, and end them with `stack`."""
    model = str(directory / "model")
    stock = ["vllm.entrypoints.openai.api_server", "--model", model, *FLAGS]
    ours = ["loradrop.worker", model, *FLAGS, "--redis-url", redis_url, "--lora-dir-prefix", str(prefix)]
    switches = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_LORA_RESOLVER_CACHE_DIR": str(directory / "resolved"),
    }
    servers = (
        start(stock, directory=directory, name="stock", **switches),
        start(ours, directory=directory, name="loradrop"),
    )
    for server in servers:
        stack.callback(server.kill)
    for server in servers:
        server.wait_ready()
    return servers


async def main(directory: Path) -> None:
    """Run everything in `directory`."""
    prefix, resolved = directory / "loras", directory / "resolved"
    (directory / "redis").mkdir()
    resolved.mkdir()
    model = build_model(directory / "model")
    with ExitStack() as stack:
        redis = stack.enter_context(valkey(directory / "redis"))
        async with Connection(redis.url) as connection:
            catalog = BenchCatalog(connection, prefix)
            servers = start_servers(stack, directory, redis.url, prefix)
            stock, ours = Stock(servers[0], prefix), Loradrop(servers[1], catalog)
            try:
                await lost_prefix(ours, prefix, redis.url)
                write_adapters(prefix, model)
                await catalog.begin()
                await catalog.withdraw(*LOST)
                await streams(stock, ours)
                await first_requests(stock, ours, prefix, resolved)
                await listings(stock, ours)
            except httpx.HTTPError:
                print(*(server.log[-4000:] for server in servers), sep="\n")
                raise


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(made)))
