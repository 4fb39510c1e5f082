"""Plan the mutants, hand them to jobs, and print what no test noticed.

    python -m tests.mutants [--jobs N] [--sample N] [--seed N] [MODULE ...]

MODULE is a path or the beginning of one; without any, all of `targets`. With --sample, that many mutants are
drawn at random. The work tree is only read: each job has a copy of it. Exits with 1 where fewer than 90 % of
the mutants were noticed.
"""

import argparse
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.job import OUTPUT
from tests.mutants.operators import Mutant, mutants, normalized
from tests.mutants.targets import TARGETS

_ROOT = Path(__file__).parents[2]
_COPIED = (
    "api",
    "catalog",
    "cli",
    "watcher",
    "worker",
    "client",
    "loradrop",
    "tests",
    "testkit",
    "examples",
    "pyproject.toml",
)
_ENOUGH = 0.9
_SHOWN_CHARACTERS = 2000
_LEAST_LIMIT_SECONDS = 30.0
_TIMES_THE_BASELINE = 4.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutant of the module at `path`."""

    path: str
    mutant: Mutant
    what: str
    seconds: float

    @property
    def was_noticed(self) -> bool:
        return self.what != "passed"


class Job:
    """A process with a copy of the tree."""

    def __init__(self, directory: Path) -> None:
        for name in _COPIED:
            source = _ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(source, directory / name, symlinks=True, ignore=ignore)
            elif source.exists():
                shutil.copy(source, directory / name)
        self._directory = directory
        self._limits: dict[str, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.job"],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def outcome(self, path: str, mutant: Mutant) -> Outcome:
        """Try one mutant, after the module as it is; raises RuntimeError where the tests fail without any."""
        if path not in self._limits:
            baseline = self._ask(path, normalized((_ROOT / path).read_text()), limit_seconds=600.0)
            if baseline["outcome"] != "passed":
                output = (self._directory / OUTPUT).read_text()[-_SHOWN_CHARACTERS:]
                raise RuntimeError(f"The tests of {path} do not pass without a mutant: {baseline}\n{output}")
            self._limits[path] = max(_LEAST_LIMIT_SECONDS, baseline["seconds"] * _TIMES_THE_BASELINE)
        answer = self._ask(path, mutant.source, limit_seconds=self._limits[path])
        return Outcome(path, mutant, answer["outcome"], answer["seconds"])

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, path: str, source: str, *, limit_seconds: float) -> dict[str, Any]:
        task = {"path": path, "source": source, "tests": TARGETS[path], "limit_seconds": limit_seconds}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(task)}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> int:
    arguments = _arguments()
    chosen = [path for path in TARGETS if not arguments.modules or path.startswith(tuple(arguments.modules))]
    planned = [(path, mutant) for path in chosen for mutant in mutants((_ROOT / path).read_text())]
    if arguments.sample and arguments.sample < len(planned):
        drawn = random.Random(arguments.seed).sample(range(len(planned)), arguments.sample)
        planned = [planned[index] for index in sorted(drawn)]
    print(f"{len(planned)} mutants of {len(chosen)} modules", flush=True)
    with tempfile.TemporaryDirectory(prefix="loradrop-mutants-") as scratch:
        jobs = [Job(Path(scratch) / f"job{number}") for number in range(arguments.jobs)]
        outcomes = _outcomes(planned, jobs)
    return _report(chosen, outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, default=0, help="this many, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("modules", nargs="*", help="paths, or how they begin")
    return parser.parse_args()


def _outcomes(planned: list[tuple[str, Mutant]], jobs: list[Job]) -> list[Outcome]:
    free, lock, outcomes = list(jobs), threading.Lock(), []

    def run(path: str, mutant: Mutant) -> None:
        with lock:
            job = free.pop()
        try:
            outcome = job.outcome(path, mutant)
        finally:
            with lock:
                free.append(job)
        with lock:
            outcomes.append(outcome)
            if not outcome.was_noticed:
                print(f"\n[{len(outcomes)}/{len(planned)}] {_described(outcome)}", flush=True)

    with ThreadPoolExecutor(len(jobs)) as threads:
        tries = [threads.submit(run, *each) for each in planned]
        try:
            for each in tries:
                each.result()
        except KeyboardInterrupt:
            print("\ninterrupted: what follows is of the mutants that were tried", flush=True)
        finally:
            threads.shutdown(cancel_futures=True)
    for job in jobs:
        job.close()
    return outcomes


def _described(outcome: Outcome) -> str:
    before = normalized((_ROOT / outcome.path).read_text()).splitlines()
    after = outcome.mutant.source.splitlines()
    changes = [line for line in difflib.unified_diff(before, after, n=1, lineterm="")][3:]
    return "\n".join([f"survived: {outcome.path}:{outcome.mutant.line} ({outcome.mutant.what})", *changes])


def _report(chosen: list[str], outcomes: list[Outcome]) -> int:
    print(f"\n{'module':40}  mutants  noticed")
    for path in chosen:
        own = [outcome for outcome in outcomes if outcome.path == path]
        print(f"{path:40}  {len(own):7}  {sum(outcome.was_noticed for outcome in own):7}")
    noticed = sum(outcome.was_noticed for outcome in outcomes)
    print(f"{'all':40}  {len(outcomes):7}  {noticed:7}  {noticed / max(1, len(outcomes)):.1%}")
    print(dict(Counter(outcome.what for outcome in outcomes)))
    return 0 if noticed >= _ENOUGH * len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
