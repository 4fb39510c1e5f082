"""I8: what must not grow with the length of a run, or with its faults."""

import os
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from tests.chaos.record import Entry

MOST_EVENTS = 10_000
EVENTS_PER_ADAPTER = 10
MOST_REFRESHES = 1_000
_BLOCK = 100
"""A stream is trimmed by whole blocks of this many entries."""

LEAST_SAMPLES = 20
"""Of a shorter life nothing is said: it is still beginning."""

POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""What asyncio's pool grows to, once a standby watcher leads and has files to look at."""

SLACK = {"rss": 32 << 20, "threads": POOL_THREADS, "files": 8, "tasks": 8}
SHARE = 0.1
"""The second half of a life may hold, in the median, a tenth and this slack more than the first."""


def streams_are_bounded(entries: list[Entry]) -> Iterator[str]:
    """The streams hold no more than they are trimmed to, and no event beside the changes of the catalog."""
    most_adapters = 0
    for entry in entries:
        if entry["what"] != "holds":
            continue
        most_adapters = max(most_adapters, entry["adapters"])
        most_events = max(MOST_EVENTS, EVENTS_PER_ADAPTER * most_adapters) + _BLOCK
        if entry["events"] > min(entry["seq"], most_events):
            yield f"more events than {most_events}, or than changes: {entry}"
        if entry["refreshes"] > MOST_REFRESHES + _BLOCK:
            yield f"more refreshes than {MOST_REFRESHES}: {entry}"


def holds_no_more_than_before(entries: list[Entry]) -> Iterator[str]:
    """A process holds as much memory, threads, files and tasks in the second half of its life as before."""
    lives: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry["what"] == "weighs":
            lives[entry["who"], entry["pid"]].append(entry)
    for (who, pid), samples in lives.items():
        if len(samples) < LEAST_SAMPLES:
            continue
        half = len(samples) // 2
        for kind in SLACK.keys() & samples[0].keys():
            first = median(sample[kind] for sample in samples[:half])
            second = median(sample[kind] for sample in samples[half:])
            if second > first * (1 + SHARE) + SLACK[kind]:
                yield f"{who} {pid} holds more and more {kind}: {first:g}, then {second:g}"
