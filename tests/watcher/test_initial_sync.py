"""When everything under the prefix has been published for the first time."""

from collections.abc import Iterator
from itertools import count

from loradrop.watcher.initial_sync import InitialSync
from loradrop.watcher.refresh.progress import Progress


class Session:
    """A session whose scans and open names a test decides."""

    def __init__(self) -> None:
        self.sync = InitialSync()
        self.scans_done = 0
        self.open: set[str] = set()
        self.numbers: Iterator[int] = count(2)
        self.wanted: list[int] = []

    def want_scan(self) -> int:
        self.wanted.append(next(self.numbers))
        return self.wanted[-1]

    def advanced(self, progress: Progress) -> Progress:
        return progress.advanced(
            scans_done=self.scans_done, pending=lambda: self.open, is_open=self.open.__contains__
        )

    def advance(self, *, disturbed: bool = False) -> bool:
        return self.sync.advance(self.advanced, disturbed=disturbed, want_scan=self.want_scan)


def test_it_ends_once_when_all_that_the_first_scan_found_is_published() -> None:
    session = Session()
    assert not session.advance()
    session.sync.begin(1)
    assert not session.advance()
    session.scans_done, session.open = 1, {"sql"}
    assert not session.advance()
    session.open = set()
    assert session.advance()
    assert not session.advance()
    assert session.wanted == []


def test_where_adapters_vanish_meanwhile_another_whole_scan_must_find_nothing_gone() -> None:
    session = Session()
    session.sync.begin(1)
    session.scans_done = 1
    assert not session.advance(disturbed=True)
    assert not session.advance(disturbed=True)
    assert not session.advance()
    assert session.wanted == [2]
    session.scans_done = 2
    assert session.advance()


def test_another_session_begins_anew() -> None:
    session = Session()
    session.sync.begin(1)
    session.advance(disturbed=True)
    session.sync.begin(1)
    session.scans_done = 1
    assert session.advance()
    assert session.wanted == []
