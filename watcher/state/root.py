"""Which directory the prefix is, and whether it is the one that is expected there. Pure.

A mount goes away and leaves an empty directory; a directory is renamed and made anew; a watcher starts before
its mount, or with another prefix by mistake. None of that removes adapters. So the watcher keeps the identity
of the directory it has accepted, also over restarts (the catalog holds it), and nothing counts as gone in any
other until a listing of that was judged (`planning`):

    expected 5, listed 5                       accepted: seen without interruption since it was accepted
    `mv loras old; mkdir loras`
    expected 5, seen 7                         not accepted: nothing counts as gone
    expected 5, seen 7, listed 7: all missing  refused: the prefix is away; what is dropped is still published
    `rmdir loras; mv old loras`
    expected 5, seen 5, listed 5               accepted again
    or `loradrop refresh --confirm-removals`
    expected 7, listed 7                       accepted: what is missing is removed
"""

from dataclasses import dataclass, replace

from loradrop.watcher.prefix.findings import RootIdentity


@dataclass(frozen=True, slots=True)
class Root:
    """The directory `seen` at the prefix last, the one `listed`, `expected`, and `refused` last.

    Invariant: where it `is_accepted`, the directory seen is the expected one, and has been ever since.
    """

    seen: RootIdentity | None = None
    listed: RootIdentity | None = None
    expected: RootIdentity | None = None
    refused: RootIdentity | None = None
    is_accepted: bool = False

    @property
    def is_listed(self) -> bool:
        """Whether the directory that was seen last has been listed since it was first seen or in doubt."""
        return self.listed is not None

    @property
    def is_expected(self) -> bool:
        """Whether the directory that was seen last is the one expected there."""
        return self.seen is not None and self.expected is not None and self.seen.is_same(self.expected)

    @property
    def is_refused(self) -> bool:
        """Whether the directory that was seen last was judged not to be the prefix."""
        return self.seen is not None and self.refused is not None and self.seen.is_same(self.refused)

    def begun(self, recorded: RootIdentity | None) -> "Root":
        """Return what is known when a session begins and the catalog expects `recorded`, if it knows."""
        if recorded is None or (self.expected is not None and recorded.is_same(self.expected)):
            return self
        return replace(self, expected=recorded, is_accepted=False, listed=None)

    def observed(self, seen: RootIdentity) -> "Root":
        """Return what is known once `seen` was found at the prefix."""
        if self.seen is not None and self.seen.is_same(seen):
            return self
        observed = replace(self, seen=seen, listed=None)
        return observed if observed.is_expected else replace(observed, is_accepted=False)

    def doubted(self) -> "Root":
        """Return what is known once the prefix could not be read, or was replaced for an instant."""
        return replace(self, is_accepted=False, listed=None)

    def listed_now(self) -> "Root":
        """Return what is known once the directory that was seen last is listed."""
        return replace(self, listed=self.seen)

    def judged(self, *, accepts: bool) -> "Root":
        """Return what is known once the directory that was listed is accepted or refused."""
        if accepts:
            return replace(self, expected=self.listed, refused=None, is_accepted=True)
        return replace(self, refused=self.listed)
