"""Processes that share a store, for tests that kill them: `python -m tests.worker.store_process WHAT ...`.

hold STORE PREFIX NAME          obtain, say so, and keep the pin until stdin ends
race STORE PREFIX NAME...       eight processes obtain every name at the same moment
die STORE PREFIX NAME           obtain again and again, killed -9 one step later each time, until it survives
full STORE PREFIX NAME          obtain with hardly any space left, then with more

All but `hold` print one JSON line: what each process, death or try left in the store. `full` wants the store
to be an empty file system of its own.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Source, digest_copy
from loradrop.worker.store.revision_store import RevisionStore

_PLENTY = 1 << 30
_STEPS = [
    *((os, name) for name in ("open", "readv", "fsync", "utime", "close", "fstat")),
    *((Path, name) for name in ("mkdir", "touch", "open", "rename")),
    (shutil, "rmtree"),
]


async def _obtain(store: Path, prefix: Path, name: str) -> str:
    revision = digest_copy(prefix / name)
    pinned = await RevisionStore(store, max_bytes=_PLENTY).obtain(Source(prefix, name, revision))
    return pinned.revision


async def _hold(store: Path, prefix: Path, name: str) -> None:
    revision = digest_copy(prefix / name)
    pinned = await RevisionStore(store, max_bytes=_PLENTY).obtain(Source(prefix, name, revision))
    print(pinned.revision, flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _race(store: Path, prefix: Path, *names: str) -> list[bool]:
    gate_read, gate_write = os.pipe()

    def racer() -> None:
        os.close(gate_write)
        os.read(gate_read, 1)
        for name in names:
            assert asyncio.run(_obtain(store, prefix, name)) == digest_copy(prefix / name)

    children = [_forked(racer) for _ in range(8)]
    os.close(gate_write)
    return [os.waitpid(child, 0)[1] == 0 for child in children]


def _die(store: Path, prefix: Path, name: str) -> list[dict[str, Any]]:
    deaths = []
    while True:
        child = _forked(lambda: _obtain_until_killed(store, prefix, name, len(deaths)))
        survived = os.waitpid(child, 0)[1] == 0
        left = sorted(path.name for path in (store / "revisions").glob("*"))
        deaths.append(
            {
                "survived": survived,
                "whole": all(digest_copy(store / "revisions" / revision) == revision for revision in left),
                "next_start_serves": asyncio.run(_obtain(store, prefix, name)) == digest_copy(prefix / name),
                "unfinished": len(list((store / "incoming").iterdir())),
            }
        )
        if survived:
            return deaths
        shutil.rmtree(store)


def _full(store: Path, prefix: Path, name: str) -> list[dict[str, Any]]:
    tries = []
    ballast = store / "ballast"
    page = 4096
    for spare in (0, page, 2 * page, 4 * page, 8 * page, 1000 * page):
        ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(store).free
        ballast.write_bytes(b"\0" * max(0, free - spare))
        try:
            outcome = asyncio.run(_obtain(store, prefix, name))
        except Failed as failed:
            outcome = failed.reason.code
        left = [path for path in (store / "revisions").iterdir()]
        unfinished = len(list((store / "incoming").iterdir()))
        tries.append({"outcome": outcome, "revisions": len(left), "unfinished": unfinished})
    return tries


def _obtain_until_killed(store: Path, prefix: Path, name: str, step: int) -> None:
    revision = digest_copy(prefix / name)
    taken = [0]
    for owner, attribute in _STEPS:
        setattr(owner, attribute, _counted(getattr(owner, attribute), taken, step))
    asyncio.run(RevisionStore(store, max_bytes=_PLENTY).obtain(Source(prefix, name, revision)))


def _counted(real: Callable[..., Any], taken: list[int], step: int) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        taken[0] += 1
        if taken[0] > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def _forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - a fork must not go on as its parent
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    what, store, prefix, *names = sys.argv[1:]
    if what == "hold":
        asyncio.run(_hold(Path(store), Path(prefix), *names))
        return
    work: Callable[..., Any] = {"race": _race, "die": _die, "full": _full}[what]
    print(json.dumps(work(Path(store), Path(prefix), *names)))


if __name__ == "__main__":
    main()
