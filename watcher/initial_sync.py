"""Whether everything under the prefix has been published since this watcher leads (client-go's HasSynced).

Before, a name that is missing from the catalog may only be late. What vanishes in the middle of the first
scan may come back with names that are not known yet, so then another whole scan has to find nothing gone.
"""

from collections.abc import Callable

from loradrop.watcher.refresh.progress import Progress


class InitialSync:
    """The first scan of a session, followed to its end."""

    def __init__(self) -> None:
        """Be over: no session has begun."""
        self._progress: Progress | None = None
        self._is_disturbed = False

    def begin(self, scan: int) -> None:
        """Begin anew with the scan of this number."""
        self._progress, self._is_disturbed = Progress(scan), False

    def advance(
        self, advanced: Callable[[Progress], Progress], *, disturbed: bool, want_scan: Callable[[], int]
    ) -> bool:
        """Return whether it has come to its end just now.

        `disturbed`: adapters vanished, and may come back; once that is over, the number of another scan is
        asked for.
        """
        if self._progress is None:
            return False
        if disturbed:
            self._is_disturbed = True
            return False
        if self._is_disturbed:
            self.begin(want_scan())
        self._progress = advanced(self._progress)
        if not self._progress.is_over:
            return False
        self._progress = None
        return True
