"""A process in a copy of the tree that tries one mutant after another: `python -m tests.mutants.job`.

It reads one JSON object a line (`path`, `source`, `tests`, `limit_seconds`) and answers each with one
(`outcome`: passed, failed, broke or hung; `seconds`). Each try is a fork that runs pytest on the copy with
the mutant in its place. What the tests import from elsewhere is imported once, before the fork: that takes
longer than the tests.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_OPTIONS = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-m",
    "not faults and not e2e",
)
_OURS = ("loradrop", "tests", "testkit", "__main__", "xdist", "conftest")
_POLL_SECONDS = 0.02

OUTPUT = "pytest.log"
"""What the last try printed."""


def main() -> None:
    sys.dont_write_bytecode = True  # a mutant of the same size and second would be taken for the one before
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warmed: set[tuple[str, ...]] = set()
    for line in sys.stdin:
        task = json.loads(line)
        tests = tuple(task["tests"])
        if tests not in warmed:
            warmed.add(tests)
            _import_what(tests)
        original = Path(task["path"]).read_bytes()
        Path(task["path"]).write_text(task["source"])
        try:
            answer = _try(tests, task["limit_seconds"])
        finally:
            Path(task["path"]).write_bytes(original)
        os.write(answers, f"{json.dumps(answer)}\n".encode())


def _try(tests: tuple[str, ...], limit_seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        os.dup2(os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os._exit(_run_pytest(tests))
    outcome = "hung"
    while time.monotonic() - began < limit_seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            outcome = {0: "passed", 1: "failed"}.get(os.waitstatus_to_exitcode(status), "broke")
            break
        time.sleep(_POLL_SECONDS)
    _end_all(child)
    if outcome == "hung":
        os.waitpid(child, 0)
    return {"outcome": outcome, "seconds": time.monotonic() - began}


def _end_all(session: int) -> None:
    """End the fork and what its tests left running."""
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def _run_pytest(tests: tuple[str, ...]) -> int:
    import pytest

    try:
        return int(pytest.main([*_OPTIONS, *tests]))
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        return 2


def _import_what(tests: tuple[str, ...]) -> None:
    """Import what collecting `tests` imports from elsewhere."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _run_pytest(("--collect-only", *tests))
        names = [name for name in sys.modules if not name.startswith(_OURS)]
        os.write(write, " ".join(names).encode()[: 1 << 16])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as names:
        found = names.read().split()
    os.waitpid(child, 0)
    for name in found:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the fork imports it, then
            continue
    if seen := [name for name in sys.modules if name.startswith("loradrop")]:
        raise RuntimeError(f"imported before the fork, which would see no mutant of them: {seen}")


if __name__ == "__main__":
    main()
