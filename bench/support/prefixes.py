"""Prefixes of many small adapters, made quickly, and drops into them by another process."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat
from testkit.adapters import CONFIG, lora_weights

_CONFIG = json.dumps(CONFIG | {"note": "x" * 800}).encode()  # of the length PEFT writes


@contextmanager
def filled(count: int) -> Iterator[Path]:
    """Yield a prefix that holds `count` adapters, for the length of the block."""
    directory = Path(tempfile.mkdtemp(prefix="loradrop-bench-"))
    try:
        prefix = directory / "prefix"
        fill(prefix, names(count))
        yield prefix
    finally:
        shutil.rmtree(directory)


def names(count: int) -> list[str]:
    """Return the names of `count` adapters."""
    return [f"adapter-{number:05}" for number in range(count)]


def fill(prefix: Path, adapters: Sequence[str]) -> None:
    """Write each of `adapters`, all of the same weights."""
    weights = lora_weights()
    for name in adapters:
        directory = prefix / name
        directory.mkdir(parents=True)
        (directory / CONFIG_FILENAME).write_bytes(_CONFIG)
        (directory / WeightsFormat.SAFETENSORS.filename).write_bytes(weights)


@contextmanager
def dropping(prefix: Path, count: int, label: str, *, gap_seconds: float = 0.01) -> Iterator["Drops"]:
    """Let another process rename `count` adapters into `prefix`, one every `gap_seconds`.

    They are written before the block begins, and dropped once `Drops.go` is called.
    """
    aside = prefix.parent / f"aside-{label}"
    adapters = [f"{label}-{number}" for number in range(count)]
    fill(aside, adapters)
    command = [sys.executable, "-m", "bench.support.prefixes", str(aside), str(prefix), str(gap_seconds)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Drops(child, adapters)
    finally:
        child.kill()
        child.wait()
        for name in adapters:
            shutil.rmtree(prefix / name, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


class Drops:
    """Adapters another process drops."""

    def __init__(self, child: "subprocess.Popen[str]", adapters: list[str]) -> None:
        """Let `child` drop `adapters`."""
        self.names = adapters
        self._child = child

    def go(self) -> None:
        """Begin."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()

    def times(self) -> dict[str, float]:
        """Return when (`time.monotonic`) each was about to be renamed; waits until all were."""
        assert self._child.stdout is not None
        found: dict[str, float] = json.loads(self._child.stdout.readline())
        return found


def _drop(aside: Path, prefix: Path, gap_seconds: float) -> None:
    sys.stdin.readline()
    dropped: dict[str, float] = {}
    for directory in sorted(aside.iterdir()):
        time.sleep(gap_seconds)
        dropped[directory.name] = time.monotonic()
        directory.rename(prefix / directory.name)
    sys.stdout.write(json.dumps(dropped) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _drop(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
