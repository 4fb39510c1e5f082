"""How far a scan that was asked for has come: scanned, then examined, settled and published.

Pure. A value that only moves forward:

    Progress(scan=4)                       waits for a scan that began after it was asked for
    awaited=(a, b, c), left=3              that scan is done, and these names were open when it was
    awaited=(a, b, c), left=1              c and b are not open any more
    left=0                                 over: nothing it covers may soon be something else
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Progress:
    """A scan, or an examination of `names`, followed to its end. Time bounds the waiting, not the work.

    `scan` is the number of the first scan that began after it was wanted, 0 where only `names` are examined;
    no `names` means all. `awaited` are the names that were open once that scan was done, None before; the
    first `left` of them may still be.
    """

    scan: int
    names: frozenset[str] = frozenset()
    awaited: tuple[str, ...] | None = None
    left: int = 0

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.awaited is not None and self.left == 0

    def covers(self, name: str) -> bool:
        """Return whether `name` is in the scope."""
        return not self.names or name in self.names

    def advanced(
        self, *, scans_done: int, pending: Callable[[], Collection[str]], is_open: Callable[[str], bool]
    ) -> "Progress":
        """Return how far it is now.

        `pending` are the names that are being examined or will be; `is_open` says whether a name may soon be
        something else. One open name is reason enough to wait, so it stops asking at the first.
        """
        if scans_done < self.scan:
            return self
        awaited, left = self.awaited, self.left
        if awaited is None:
            awaited = tuple(name for name in pending() if self.covers(name))
            left = len(awaited)
        while left and not is_open(awaited[left - 1]):
            left -= 1
        return replace(self, awaited=awaited, left=left)
