"""A prefix to be watched, by each notifier there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loradrop.watcher.notify.notifier import Hint, Notifier
from loradrop.watcher.settings import NotifierChoice
from tests.watcher.notifiers import MAKERS
from tests.watcher.running import SOON


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path, Callable[[Hint], None]], Notifier]:
    made: Callable[[Path, Callable[[Hint], None]], Notifier] = request.param
    return made


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "prefix"
    path.mkdir()
    return path


@pytest.fixture(params=[NotifierChoice.INOTIFY, NotifierChoice.WATCHDOG])
def notified(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings under which only notifications can tell: the rescan is off."""
    return {**SOON, "notifier": request.param, "interval_seconds": 0}
