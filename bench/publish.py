"""From a rename into the prefix to the published event, against a bare loop of inotify, hash, XADD and XREAD.

    python bench/publish.py [ADAPTERS ...]

Both run all the time on prefixes of the same size and one Valkey; drops go to one, then to the other.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from bench.scan import watcher
from bench.support.prefixes import dropping, filled
from bench.support.tables import show_latencies
from testkit.servers import valkey
from testkit.waiting import wait_until_sync

SIZES = (1_000, 10_000)
ROUNDS = 4
DROPS = 75
EVENTS = "loradrop:{default}:events"
ADAPTERS = "loradrop:{default}:adapters"
BARE = "bare"


def main() -> None:
    """Print a table for each size."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    for size in sizes:
        with ExitStack() as stack:
            ours, theirs = (stack.enter_context(filled(size)) for _ in range(2))
            server = stack.enter_context(valkey(ours.parent))
            client = stack.enter_context(redis.Redis.from_url(server.url))
            stack.enter_context(watcher(ours, server.url))
            stack.enter_context(bare(theirs, server.url))
            wait_until_sync(
                lambda client=client, size=size: client.hlen(ADAPTERS) == size and client.xlen(BARE) > 0,  # type: ignore[misc]
                timeout=120,
                description="both have seen all",
            )
            time.sleep(2)
            seconds: dict[str, list[float]] = {"bare loop": [], "loradrop": []}
            with listening(server.url) as heard:
                for number in range(ROUNDS):
                    for way, prefix in (("bare loop", theirs), ("loradrop", ours)):
                        seconds[way] += drop(prefix, heard, f"{way[0]}{number}")
            show_latencies(f"From rename to event, {size} adapters in the prefix", seconds, "bare loop")


@contextmanager
def bare(prefix: Path, url: str) -> Iterator[None]:
    """Run the bare loop for the length of the block."""
    command = [sys.executable, "-m", "bench.support.bare", str(prefix), url, BARE]
    with subprocess.Popen(command) as child:
        try:
            yield
        finally:
            child.kill()


@contextmanager
def listening(url: str) -> Iterator[dict[str, float]]:
    """Yield when (`time.monotonic`) the first event of each adapter came."""
    heard: dict[str, float] = {}
    stop = threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(url) as client:
            cursors = {stream: client.xinfo_stream(stream)["last-generated-id"] for stream in (EVENTS, BARE)}
            while not stop.is_set():
                for stream, entries in client.xread(cursors, block=200) or []:
                    now = time.monotonic()
                    cursors[stream.decode()] = entries[-1][0]
                    for _, fields in entries:
                        heard.setdefault(fields[b"name"].decode(), now)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()


def drop(prefix: Path, heard: dict[str, float], label: str) -> list[float]:
    """Drop adapters and return the seconds from just before each rename to its event."""
    with dropping(prefix, DROPS, label, gap_seconds=0.02) as drops:
        drops.go()
        dropped = drops.times()
        wait_until_sync(lambda: dropped.keys() <= heard.keys(), timeout=60, description="all are told")
    return [heard[name] - at for name, at in dropped.items()]


if __name__ == "__main__":
    main()
