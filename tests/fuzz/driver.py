"""Runs targets one after another, or some at once, and says what each of them came to."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.findings import keep
from tests.fuzz.target import Target

_SLACK_SECONDS = 120.0
"""What starting, and keeping a last finding, may take beyond the time a target has."""
_MEMORY = Path("/dev/shm")
"""Where files are not written to a disk, on Linux."""
_MOST_DEATHS = 3
"""How often a target is begun again whose process died: the input is kept each time."""


@dataclass(frozen=True, slots=True)
class Account:
    """What came of one target. `edges` and `features` are None where nothing measured them."""

    name: str
    executions: int
    seconds: float
    edges: int | None
    features: int | None
    findings: list[Path]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of a run are: `work` grows from run to run, `findings` belong to the repository."""

    work: Path
    findings: Path


def fuzz(targets: list[Target], seconds: float, place: Place, *, processes: int = 1) -> Iterator[Account]:
    """Divide `seconds` among `targets`, so many at once, and yield the account of each."""
    share = seconds * processes / len(targets)
    with ThreadPoolExecutor(processes) as pool:
        yield from pool.map(lambda target: _fuzz_one(target, share, place), targets)


def _fuzz_one(target: Target, seconds: float, place: Place) -> Account:
    directory = place.work / target.name
    kept = place.findings / target.name
    _lay_out(target, directory, kept)
    before = {path.name for path in _files(kept)}
    started = time.monotonic()
    text = ""
    for _ in range(_MOST_DEATHS):
        left = seconds - (time.monotonic() - started)
        if left <= 0:
            break
        text += _run(target, left, directory)
        deaths = list(directory.glob("died-*"))
        for death in deaths:
            keep(directory / "findings", death.read_bytes())
            death.unlink()
        if not deaths:
            break
    for path in _files(directory / "findings"):
        keep(kept, path.read_bytes())
        path.unlink()
    fresh = [path for path in _files(kept) if path.name not in before]
    return _account(target.name, text, time.monotonic() - started, fresh)


def _lay_out(target: Target, directory: Path, kept: Path) -> None:
    for part in ("seeds", "known", "findings"):
        shutil.rmtree(directory / part, ignore_errors=True)
        (directory / part).mkdir(parents=True)
    (directory / "corpus").mkdir(exist_ok=True)
    for path in _files(kept):
        keep(directory / "known", path.read_bytes())
    for data in [*target.seeds(), *(path.read_bytes() for path in _files(kept))]:
        keep(directory / "seeds", data)
    lines = ("".join(f"\\x{byte:02x}" for byte in token) for token in target.tokens)
    (directory / "tokens").write_text("".join(f'"{line}"\n' for line in lines))


def _run(target: Target, seconds: float, directory: Path) -> str:
    """Return what the process that fuzzed for `seconds` printed."""
    command = [sys.executable, "-m", "tests.fuzz.engine", target.name, f"{seconds:.1f}", str(directory)]
    memory = _MEMORY if _MEMORY.is_dir() else None
    with (directory / "log").open("w+") as log, TemporaryDirectory(dir=memory) as scratch:
        subprocess.run(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"TMPDIR": scratch},  # libFuzzer ends the process without a chance to clean up
            timeout=seconds + _SLACK_SECONDS,
            check=False,
        )
        log.seek(0)
        return log.read()


def _account(name: str, text: str, seconds: float, findings: list[Path]) -> Account:
    # A process that died printed no sum: the last line of its progress begins with #EXECUTIONS.
    sums = (
        re.findall(r"number_of_executed_units: (\d+)", text)
        or re.findall(r"^#(\d+)\t", text, re.MULTILINE)[-1:]
    )
    seen = re.findall(r"cov: (\d+) ft: (\d+)", text)
    edges, features = (int(number) for number in seen[-1]) if seen else (None, None)
    return Account(name, sum(int(number) for number in sums), seconds, edges, features, findings)


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
