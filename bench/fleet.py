"""How a fleet keeps up with its catalog, against bare clients of the same Redis: XADD, XREAD, HGETALL.

    python bench/fleet.py [FOLLOWERS ...] [--plots DIRECTORY]

Tables go to the terminal, plots to `docs/` or DIRECTORY; matplotlib draws them: pip install -e '.[bench]'.
Followers are the worker's own follower and reconciler, without an engine, in a few processes; as many bare
clients run in the same processes. They take turns, so that all meet the same noise.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.publish import BARE, bare
from bench.scan import watcher
from bench.support import followers
from bench.support.catalog import Alternating
from bench.support.crews import Crew, Crews, crews
from bench.support.plots import Seconds, plot_drops, plot_refreshes, plot_starts
from bench.support.prefixes import dropping, filled, names
from bench.support.tables import show_latencies, show_ratios
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.catalog.redis_keys import Keys
from loradrop.catalog.status import RefreshStatus
from loradrop.catalog.store import Connection
from testkit.servers import valkey
from testkit.waiting import wait_until_sync

FOLLOWERS = (1, 8, 32)
KEYS = Keys()
STREAM = "bench:stream"
ASKED = "bench:asked"
ACKNOWLEDGED = "bench:acknowledged"
DONE = "bench:done"

LISTED = 1_000
DROP_ROUNDS = 4
DROPS = 25
GAP_SECONDS = 0.1
"""Between two drops: enough for all followers to take one in before the next."""

CATALOG = 10_000
START_ROUNDS = 5
MISSED = CATALOG

REFRESH_FOLLOWERS = 8
REFRESH_ROUNDS = 3
REFRESHES = 30
"""Of each kind in a round: all rounds together stay below what a pool takes in a minute."""

Dropped = tuple[Mapping[str, float], list[followers.Heard]]
"""When each adapter was dropped, and when each follower had it."""
Drop = Callable[[str], Dropped]


def main() -> None:
    """Print the tables and draw the plots."""
    parser = argparse.ArgumentParser()
    parser.add_argument("followers", nargs="*", type=int, default=FOLLOWERS)
    parser.add_argument("--plots", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    counts = arguments.followers
    with surroundings() as (directory, fleet):
        drops, refreshes = show_watched(fleet, counts)
        fleet.client.flushall()
        alternating = Alternating(directory / "two", fleet.url, names(CATALOG))
        starts, catching_up = {}, {}
        for count in counts:
            starts[count] = show_starts(fleet, count)
            catching_up[count] = show_catching_up(fleet, count, alternating)
    arguments.plots.mkdir(exist_ok=True)
    plot_drops(drops, arguments.plots / "drop-to-listed.png", LISTED)
    plot_refreshes(refreshes, arguments.plots / "refresh.png", LISTED, REFRESH_FOLLOWERS)
    plot_starts(starts, catching_up, arguments.plots / "start-and-catch-up.png", CATALOG)


def show_watched(fleet: Crews, counts: Sequence[int]) -> tuple[Mapping[int, Seconds], Seconds]:
    """Print and return what takes a watcher: drops by count of followers, and refreshes."""
    with filled(LISTED) as ours, filled(LISTED) as theirs, watcher(ours, fleet.url), bare(theirs, fleet.url):
        wait_until_sync(
            lambda: fleet.client.hlen(KEYS.adapters) == LISTED and fleet.client.xlen(BARE) > 0,
            timeout=60,
            description="both watchers have seen all",
        )
        time.sleep(2)
        drops = {count: show_drops(fleet, count, ours, theirs) for count in counts}
        return drops, show_refreshes(fleet, ours)


@contextmanager
def surroundings() -> Iterator[tuple[Path, Crews]]:
    """Yield a directory, and crews for a Valkey that keeps its data there."""
    with tempfile.TemporaryDirectory(prefix="loradrop-bench-") as name:
        directory = Path(name)
        with valkey(directory) as server, crews(server.url) as fleet:
            yield directory, fleet


def show_drops(fleet: Crews, count: int, ours: Path, theirs: Path) -> Seconds:
    """Print how long after a drop the first and the last of `count` followers list it; return the last."""
    first: dict[str, list[float]] = {}
    last: dict[str, list[float]] = {}
    ways: Mapping[str, Drop] = {
        "XADD, XREAD": lambda label: add(fleet, count, label),
        "inotify, hash, XADD, XREAD": lambda label: rename(
            theirs, label, lambda drops: fleet.start(followers.hear_bare, count, drops, BARE)
        ),
        "loradrop": lambda label: rename(
            ours, label, lambda drops: fleet.start(followers.hear, count, drops)
        ),
    }
    for number in range(DROP_ROUNDS):
        for way, drop in ways.items():
            dropped, heard = drop(f"{way[0]}-{count}-{number}")
            for name, at in dropped.items():
                moments = [one[name] - at for one in heard]
                first.setdefault(way, []).append(min(moments))
                last.setdefault(way, []).append(max(moments))
    if count > 1:
        show_latencies(f"From drop to listed, the first of {count} followers", first, "XADD, XREAD")
    show_latencies(f"From drop to listed, the last of {count} followers", last, "XADD, XREAD")
    return last


def add(fleet: Crews, count: int, label: str) -> Dropped:
    """XADD to a stream; return when, and what `count` bare readers heard."""
    wanted = [f"{label}-{number}" for number in range(DROPS)]
    crew = fleet.start(followers.hear_bare, count, frozenset(wanted), STREAM)
    crew.until_in_place()
    added = {}
    for name in wanted:
        time.sleep(GAP_SECONDS)
        added[name] = time.monotonic()
        fleet.client.xadd(STREAM, {"name": name, "revision": "0" * 64}, maxlen=10_000)
    return added, crew.results()


def rename(prefix: Path, label: str, listen: Callable[[frozenset[str]], Crew[followers.Heard]]) -> Dropped:
    """Rename adapters into `prefix`; return when, and what the crew heard."""
    with dropping(prefix, DROPS, label, gap_seconds=GAP_SECONDS) as drops:
        crew = listen(frozenset(drops.names))
        crew.until_in_place()
        drops.go()
        return drops.times(), crew.results()


def show_refreshes(fleet: Crews, prefix: Path) -> Seconds:
    """Print and return how long a refresh takes until every follower has observed it."""
    bare_way = "stat all, XADD, acknowledge"
    seconds: dict[str, list[float]] = {}
    for _ in range(REFRESH_ROUNDS):
        seconds.setdefault(bare_way, []).extend(ask_bare(fleet, prefix))
        crew = fleet.start(followers.report, REFRESH_FOLLOWERS, DONE)
        crew.until_in_place()
        for way, body in {
            "loradrop, all": RefreshBody(),
            "loradrop, one name": RefreshBody(names=names(1)),
        }.items():
            seconds.setdefault(way, []).extend(asyncio.run(ask(fleet.url, body)))
        fleet.client.xadd(DONE, {"id": followers.LAST})
        crew.results()
        fleet.client.delete(DONE)
    title = f"A refresh, {LISTED} adapters, until {REFRESH_FOLLOWERS} followers have observed it"
    show_latencies(title, seconds, bare_way)
    return seconds


async def ask(url: str, body: RefreshBody) -> list[float]:
    """Return the seconds of refreshes, one after another."""
    seconds = []
    async with Connection(url) as connection:
        queries = Queries(connection)
        for _ in range(REFRESHES):
            started = time.perf_counter()
            view = await queries.finished_refresh(await queries.start_refresh(body), timeout_seconds=30)
            seconds.append(time.perf_counter() - started)
            assert view.status is RefreshStatus.CONVERGED
            assert view.workers.total == REFRESH_FOLLOWERS
    return seconds


def ask_bare(fleet: Crews, prefix: Path) -> list[float]:
    """Return the seconds from an entry, by way of a look at all of `prefix`, to every reader's answer."""
    client: Any = fleet.client  # redis-py types a reply as the union of what every mode could return
    seconds = []
    client.delete(ACKNOWLEDGED)
    readers = fleet.start(followers.acknowledge, REFRESH_FOLLOWERS, STREAM, ACKNOWLEDGED)
    readers.until_in_place()
    looking = fleet.start(followers.look_and_answer, 1, ASKED, prefix, STREAM)
    looking.until_in_place()
    cursor = b"0-0"
    for number in range(REFRESHES):
        started = time.perf_counter()
        client.xadd(ASKED, {"id": number})
        answers = 0
        while answers < REFRESH_FOLLOWERS:
            [(_, entries)] = client.xread({ACKNOWLEDGED: cursor}, block=0)
            cursor, answers = entries[-1][0], answers + len(entries)
        seconds.append(time.perf_counter() - started)
    client.xadd(ASKED, {"id": followers.LAST})
    looking.results()
    readers.results()
    return seconds


def show_starts(fleet: Crews, count: int) -> Seconds:
    """Print and return how long `count` followers take to list a whole catalog, from nothing."""
    seconds = measured(
        {
            "HGETALL, json": lambda: fleet.start(followers.start_bare, count, KEYS.adapters, "json"),
            "HGETALL, msgspec": lambda: fleet.start(followers.start_bare, count, KEYS.adapters, "msgspec"),
            "loradrop": lambda: fleet.start(followers.start, count),
        },
        before_go=lambda: None,
    )
    title = f"Start on {CATALOG} adapters, the last of {count} followers"
    show_ratios(title, seconds, "HGETALL, json", "HGETALL, msgspec")
    return seconds


def show_catching_up(fleet: Crews, count: int, catalog: Alternating) -> Seconds:
    """Print and return how long `count` followers take to catch up with what they missed."""
    events = KEYS.events
    seconds = measured(
        {
            "XREAD": lambda: fleet.start(followers.catch_up_bare, count, MISSED, events),
            "HGETALL, json": lambda: fleet.start(followers.start_bare, count, KEYS.adapters, "json"),
            "loradrop": lambda: fleet.start(followers.catch_up, count, MISSED),
        },
        before_go=catalog.change_all,
    )
    title = f"Catch up with {MISSED} missed events, the last of {count} followers"
    show_ratios(title, seconds, "XREAD", "HGETALL, json")
    return seconds


def measured(
    ways: Mapping[str, Callable[[], Crew[float]]], *, before_go: Callable[[], None]
) -> dict[str, list[float]]:
    """Return the seconds from the word to the last of each crew, of every round."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(START_ROUNDS):
        for way, start in ways.items():
            crew = start()
            crew.until_in_place()
            before_go()
            at = crew.go()
            seconds[way].append(max(crew.results()) - at)
    return seconds


if __name__ == "__main__":
    main()
