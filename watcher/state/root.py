"""Which directory the prefix is, and which one is expected there. Pure."""

from dataclasses import dataclass

from loradrop.watcher.prefix.findings import RootIdentity


@dataclass(frozen=True, slots=True)
class Root:
    """The directory `seen` at the prefix last, the one `listed` last, and the one `expected`.

    A new directory on the same device replaces the expected one. One on another device is probably what lies
    under a mount that went away: it may add and update, and it removes nothing until a listing of it lacks
    nothing, or the operator confirms that it is meant.

        seen 8:1/12    expected 8:1/12                        the same directory
        seen 8:1/99    expected 8:1/99                        replaced: `mv loras old; mv new loras`
        seen 0:40/1    expected 8:1/99    on_other_device     mounted over, or unmounted
        seen 8:1/99    expected 8:1/99                        back
    """

    seen: RootIdentity | None = None
    listed: RootIdentity | None = None
    expected: RootIdentity | None = None

    @property
    def on_other_device(self) -> bool:
        """Whether another filesystem is at the prefix than the one expected there."""
        if self.seen is None or self.expected is None:
            return False
        return self.seen.device != self.expected.device

    @property
    def is_listed(self) -> bool:
        """Whether the directory that is there now has been listed."""
        return self.listed == self.seen

    def observed(self, seen: RootIdentity) -> "Root":
        """Return what is known once `seen` was found at the prefix."""
        is_new = self.expected is None or seen.device == self.expected.device
        return Root(seen, self.listed, seen if is_new else self.expected)

    def listed_now(self) -> "Root":
        """Return what is known once the directory that was seen last is listed."""
        return Root(self.seen, self.seen, self.expected)

    def accepted(self, identity: RootIdentity) -> "Root":
        """Return what is known once `identity` is the directory to expect."""
        return Root(self.seen, self.listed, identity)
