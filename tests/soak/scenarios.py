"""The three loads: updates of adapters, manual refreshes, and requests that load and unload.

Each is a number of events in rounds. After a round everything has been waited for: each event counts only
once the fleet has answered for it.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from loradrop.catalog.http.auth import REFRESH_PATH
from loradrop.catalog.redis_keys import Keys
from testkit.tiny_model import write_tiny_adapter
from testkit.waiting import wait_until_sync
from tests.soak.fleet import Fleet

ADAPTERS = 50
"""Names under the prefix: an update takes them in turn."""

KEPT_RESULTS = 500
"""Results of refreshes that stay readable. They would for an hour: what an hour forgets, a round forgets."""

_PATIENCE_SECONDS = 60.0
_STEP = 7
"""Prime to ADAPTERS: requests in steps of it come back to a name only after every other one."""


class Writer:
    """Writes adapters of bytes that never were before, by rename under a prefix."""

    def __init__(self, prefix: Path) -> None:
        self.names = [f"a{number:02}" for number in range(ADAPTERS)]
        self._prefix, self._aside = prefix, prefix.parent / "aside"
        self._seeds = count(1)
        self._aside.mkdir()

    def write(self, name: str) -> None:
        """Put a new revision in place of what `name` is."""
        new = write_tiny_adapter(self._aside / "new", seed=next(self._seeds))
        target, old = self._prefix / name, self._aside / "old"
        if target.exists():
            target.rename(old)
        new.rename(target)
        if old.exists():
            shutil.rmtree(old)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load. `make` does that many events and returns when they are done."""

    name: str
    make: Callable[[int], None]
    events: int
    warm_up: int


class Updates:
    """New revisions, name after name, each waited for until the API lists it."""

    def __init__(self, fleet: Fleet, writer: Writer) -> None:
        self._fleet, self._writer = fleet, writer
        self.names = writer.names

    def make(self, number: int) -> None:
        """Publish `number` updates, as many at once as there are names."""
        for start in range(0, number, ADAPTERS):
            self.publish(self.names[: min(ADAPTERS, number - start)])

    def publish(self, names: list[str]) -> None:
        """Write a new revision of each of `names`, and wait until the API lists it."""
        before = self._fleet.revisions()
        for name in names:
            self._writer.write(name)
        after: dict[str, str | None] = {}

        def are_published() -> bool:
            after.update(self._fleet.revisions())
            return all(after.get(name) not in {None, before.get(name)} for name in names)

        wait_until_sync(are_published, timeout=_PATIENCE_SECONDS, description="updates are published")


class Refreshes:
    """Manual refreshes by HTTP, of everything, of one name, and as dry runs in turn."""

    def __init__(self, fleet: Fleet, writer: Writer) -> None:
        self._fleet, self._names = fleet, writer.names
        self._numbers = count()

    def make(self, number: int) -> None:
        """Ask for `number` refreshes, no faster than the API takes them, and forget what is old."""
        for _ in range(number):
            self._refresh(next(self._numbers))
        self._forget()

    def _refresh(self, number: int) -> None:
        kinds: list[dict[str, object]] = [{}, {"names": [self._names[number % ADAPTERS]]}, {"dry_run": True}]
        url = f"{self._fleet.api.url}{REFRESH_PATH}"
        while True:
            response = self._fleet.http.post(url, json=kinds[number % len(kinds)])
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(response.headers["Retry-After"]))  # what the contract asks a client to do
        assert response.raise_for_status().json()["status"] == "converged", response.text

    def _forget(self) -> None:
        keys = list(self._fleet.redis.scan_iter(match=Keys().refresh("*"), count=1_000))
        lives = sorted((self._fleet.redis.pttl(key), key) for key in keys)
        for _, key in lives[:-KEPT_RESULTS]:
            self._fleet.redis.pexpire(key, 0)


class Loads:
    """Completions that each need a revision the engine does not have: every second one was just updated."""

    def __init__(self, fleet: Fleet, updates: Updates) -> None:
        self._fleet, self._updates = fleet, updates
        self._numbers = count()

    def make(self, number: int) -> None:
        """Make the worker load, and so unload, `number` revisions."""
        before = self._fleet.loads()
        for _ in range(number):
            self._load(next(self._numbers))
        loaded = self._fleet.loads() - before
        assert loaded >= number, f"{number} requests, {loaded} loads"

    def _load(self, number: int) -> None:
        assert self._fleet.worker is not None
        name = self._updates.names[number * _STEP % ADAPTERS]
        if number % 2:
            self._updates.publish([name])
        answer = self._fleet.worker.ask(name, max_tokens=2)
        assert answer.status == httpx.codes.OK, answer.body
