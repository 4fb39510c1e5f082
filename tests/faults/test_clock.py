"""A clock that is stepped, back or forth."""

import time
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.monitor import evaluation
from testkit.adapters import write_adapter
from tests.faults.table import Row
from tests.faults.watchers import SETTINGS, History, since
from tests.watcher.running import watching


@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
async def test_clock_stepped(
    step_seconds: float, connection: Connection, prefix: Path, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(connection, prefix, **SETTINGS) as catalog:
        history = History(catalog)
        await catalog.until_scanned()
        real = time.time
        monkeypatch.setattr(evaluation.time, "time", lambda: real() + step_seconds)
        stepped = time.monotonic()
        revision = history.note(write_adapter(prefix / "sql"))
        await history.until_revision("sql", revision)
        row.converge_seconds = since(stepped)
        states = [event.state for event in await catalog.events()]
        assert AdapterState.SETTLING in states  # by the monotonic clock, whatever the other says
        write_adapter(prefix / "sql", seed=2)
        second = history.note(prefix / "sql")
        await history.until_revision("sql", second)
        assert await history.revisions_of("sql") == [revision, second]
        await history.check(row, expected=["sql"])
