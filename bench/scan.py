"""A rescan of an unchanged prefix against other ways to look at it, and what a watcher at rest costs.

python bench/scan.py [ADAPTERS ...]
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import redis

from bench.support.prefixes import filled, names
from bench.support.tables import interleaved, show_ratios
from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.monitor.batch import Examiner
from loradrop.watcher.monitor.evaluation import ExamineRequest
from loradrop.watcher.prefix.findings import Finding
from loradrop.watcher.prefix.scan import scan
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules
from testkit.servers import valkey
from testkit.waiting import wait_until_sync

SIZES = (1_000, 10_000, 50_000)
REST_SECONDS = 65.0
"""Two rescans of the default interval."""
FILES = (CONFIG_FILENAME, WeightsFormat.SAFETENSORS.filename)
SOURCE = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
int main(int count, char **arguments) {
    int prefix = open(arguments[1], O_RDONLY | O_DIRECTORY);
    char line[4096];
    struct stat found;
    long total = 0;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\\n")] = 0;
        if (fstatat(prefix, line, &found, 0) == 0) total += found.st_size;
    }
    return total == 0;
}
"""


def main() -> None:
    """Print the tables."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    for size in sizes:
        with filled(size) as prefix, ExitStack() as stack:
            ways = all_ways(prefix, size, stack)
            seconds = interleaved(ways, rounds=5 if size > 10_000 else 11)  # noqa: PLR2004 - slow ones less often
            against = ("scandir and 2 stats", "find -printf")
            show_ratios(f"Rescan of {size} adapters, nothing changed, page cache warm", seconds, *against)
            show_watcher(prefix, size)


def all_ways(prefix: Path, size: int, stack: ExitStack) -> dict[str, Callable[[], object]]:
    """Return the ways to look at all of `prefix`."""
    known = examined(prefix, size)
    roots = Roots((prefix,))
    assert not scan(prefix, known, roots).changed
    ways: dict[str, Callable[[], object]] = {
        "loradrop": lambda: scan(prefix, known, roots),
        "scandir and 2 stats": lambda: scandir_and_stats(prefix),
        "two-level walk": lambda: two_level_walk(prefix),
        "find -printf": lambda: find(prefix),
        "parse every configuration": lambda: parse_all(prefix),
    }
    if shutil.which("cc"):
        program, listed = compiled(stack), prefix.parent / "listed"
        listed.write_text("".join(f"{name}/{file}\n" for name in names(size) for file in FILES))
        ways["C fstatat"] = lambda: fstatat(program, prefix, listed)
    return ways


def examined(prefix: Path, size: int) -> dict[str, Finding]:
    """Return what a watcher knows of the prefix after its first look."""
    examiner = Examiner(prefix, Rules(Roots((prefix,))), SettleRule(settle_seconds=0))
    requests = [ExamineRequest(name, None) for name in names(size)]
    found = examiner.examine(requests, budget_seconds=math.inf).found
    return {name: finding for name, finding in found.items() if isinstance(finding, Finding)}


def scandir_and_stats(prefix: Path) -> list[tuple[os.stat_result, os.stat_result]]:
    """The least a look at every file can cost in Python."""
    found = []
    for entry in os.scandir(prefix):
        found.append((os.stat(f"{entry.path}/{FILES[0]}"), os.stat(f"{entry.path}/{FILES[1]}")))  # noqa: PTH116
    return found


def two_level_walk(prefix: Path) -> list[os.stat_result]:
    """List every directory."""
    return [file.stat() for entry in os.scandir(prefix) for file in os.scandir(entry.path)]


def parse_all(prefix: Path) -> dict[str, object]:
    """What a script does: list, see whether the file is there, parse it."""
    found: dict[str, object] = {}
    for name in os.listdir(prefix):  # noqa: PTH208 - as the scripts do
        config = prefix / name / CONFIG_FILENAME
        if config.exists():
            found[name] = json.loads(config.read_text())
    return found


def find(prefix: Path) -> None:
    """Let `find` tell what a rescan compares."""
    command = ["find", str(prefix), "-printf", "%p %i %s %T@ %C@\n"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def fstatat(program: Path, prefix: Path, listed: Path) -> None:
    """Let C look at every file by a known name."""
    with listed.open() as names_:
        subprocess.run([str(program), str(prefix)], stdin=names_, check=True)


def compiled(stack: ExitStack) -> Path:
    """Return the C program."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (directory / "fstatat.c").write_text(SOURCE)
    command = ["cc", "-O2", "-o", str(directory / "fstatat"), str(directory / "fstatat.c")]
    subprocess.run(command, check=True)
    return directory / "fstatat"


def show_watcher(prefix: Path, size: int) -> None:
    """Print what a whole watcher process needs for the first look, and at rest."""
    with valkey(prefix.parent) as server, watcher(prefix, server.url) as process:
        started = time.monotonic()
        with redis.Redis.from_url(server.url) as client:
            wait_until_sync(
                lambda: client.hlen("loradrop:{default}:adapters") == size,
                timeout=300,
                description="all are published",
            )
        first = time.monotonic() - started
        time.sleep(5)
        before = process.cpu_times()
        time.sleep(REST_SECONDS)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        print(f"\nWatcher of {size} adapters: all published {first:.1f} s after its start,", end=" ")
        print(f"RSS {process.memory_info().rss / 1e6:.0f} MB,", end=" ")
        print(f"at rest {100 * used / REST_SECONDS:.2f} % of a core (default interval)", flush=True)


@contextmanager
def watcher(prefix: Path, url: str, *flags: str) -> Iterator[psutil.Process]:
    """Run a watcher process for the length of the block."""
    command = [
        sys.executable,
        "-m",
        "loradrop.watcher",
        "--lora-dir-prefix",
        str(prefix),
        "--redis-url",
        url,
        *flags,
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            yield psutil.Process(child.pid)
        finally:
            child.terminate()


if __name__ == "__main__":
    main()
