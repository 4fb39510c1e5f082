"""Each notifier there is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.watcher.notifiers import MAKERS
from watcher.notifier import Hint, Notifier


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path, Callable[[Hint], None]], Notifier]:
    made: Callable[[Path, Callable[[Hint], None]], Notifier] = request.param
    return made
