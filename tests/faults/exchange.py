"""A writer that exchanges directories and links at full speed; `python -m tests.faults.exchange [SECONDS]`.

Run as a program it lets the watcher validate and a worker copy an adapter meanwhile, for so long each, and
prints how often they tried, what came of it, and how many bytes came from outside the prefix: 0, or it fails.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loradrop.catalog.lora.faults import Rejected
from loradrop.watcher.validation.inspection import inspect_adapter
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.copying import Source, copy_adapter, digest_copy
from testkit.adapters import write_adapter
from testkit.waiting import wait_until_sync

_FOR_EVER = """
import ctypes, os, sys
renameat2, parent = ctypes.CDLL(None).renameat2, os.getppid()
one, other = (os.fsencode(name) for name in sys.argv[1:])
while os.getppid() == parent:
    for _ in range(1000):
        renameat2(-100, one, -100, other, 2)
"""
"""2 is RENAME_EXCHANGE, -100 the current directory."""


@contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Exchange a directory and a link for the length of the block, in another process."""
    process = subprocess.Popen([sys.executable, "-c", _FOR_EVER, str(one), str(other)])
    try:
        wait_until_sync(one.is_symlink, timeout=20, description="the directory was exchanged for the link")
        yield
    finally:
        process.kill()
        process.wait()


class Ground:
    """A prefix with one adapter, another adapter outside, and the names that are exchanged."""

    def __init__(self, directory: Path) -> None:
        """Write both adapters, as different as they can be."""
        self.prefix = directory / "loras"
        self.inside = digest_copy(write_adapter(self.prefix / "mine", seed=1))
        outside = write_adapter(directory / "outside" / "secret", seed=2, rank=8)
        self.outside = digest_copy(outside)
        self.link = self.prefix / "link"
        self.link.symlink_to(outside)
        self._copies = directory / "copies"
        assert self.inside != self.outside

    def validate(self) -> str:
        """Return what came of a look by the watcher."""
        found = inspect_adapter(self.prefix / "mine", with_revision=True)
        assert found.revision in {self.inside, None}, "bytes from outside were read"
        assert found.facts is None or found.facts.rank == 4, "bytes from outside were read"
        return found.reason.code if found.reason else "ready"

    def copy(self) -> str:
        """Return what came of a copy by a worker."""
        self._copies.mkdir()
        try:
            copy = copy_adapter(Source(self.prefix, "mine"), self._copies, lambda _: None)
        except (Failed, Rejected) as error:
            return error.reason.code
        finally:
            assert digest_copy(self._copies) in {self.inside, None}, "bytes from outside were copied"
            shutil.rmtree(self._copies)
        assert copy.revision == self.inside, "bytes from outside were copied"
        return "copied"


def outcomes(attempt: Callable[[], str], *, tries: int) -> Counter[str]:
    """Return what came of `tries` attempts, by outcome."""
    return Counter(attempt() for _ in range(tries))


def _race(seconds: float) -> None:
    for kind in ("validate", "copy"):
        with tempfile.TemporaryDirectory() as directory:
            ground = Ground(Path(directory))
            found: Counter[str] = Counter()
            with exchanging(ground.prefix / "mine", ground.link):
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    found += outcomes(getattr(ground, kind), tries=100)
        print(f"{kind}: {found.total()} tries in {seconds:g} s, outside bytes = 0; {dict(found)}")


if __name__ == "__main__":
    _race(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
