"""What looking at an adapter's directory concludes: values that threads make and the watcher keeps."""

from dataclasses import dataclass, field

from loradrop.catalog.adapter import AdapterState, Reason, Revision, WeightsFormat

_IDENTITY_PARTS = 3
_MAX_IDENTITY_LENGTH = 3 * len(str(1 << 64)) + 2

Signature = bytes
"""Inode, size, mtime, ctime and device of an adapter's two files: equal signatures, equal bytes."""


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """Which directory the prefix is at the moment: a rename or a mount puts another one in its place.

    `filesystem` is what the filesystem calls itself, 0 where it has no name. It tells a volume that is
    mounted anew, whose device number may be another, from another volume with the same number.
    """

    device: int
    inode: int
    filesystem: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """Return it as text, to be kept in the catalog."""
        return f"{self.device}:{self.inode}:{self.filesystem}"

    @classmethod
    def parse(cls, text: str) -> "RootIdentity | None":
        """Return what was written as `text`, None where that is something else."""
        parts = text.split(":")
        if len(text) > _MAX_IDENTITY_LENGTH or len(parts) != _IDENTITY_PARTS:
            return None
        if not all(part.isascii() and part.isdigit() for part in parts):
            return None
        return cls(*map(int, parts))

    def is_same(self, other: "RootIdentity") -> bool:
        """Return whether both are one directory, also where a reboot came between."""
        if self.filesystem and other.filesystem:
            return (self.filesystem, self.inode) == (other.filesystem, other.inode)
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a valid adapter's files say about it. `size_bytes` counts the configuration and the weights."""

    format: WeightsFormat
    size_bytes: int
    rank: int
    base_model: str | None


@dataclass(frozen=True, slots=True)
class Stillness:
    """Since when (seconds of a monotonic clock) the same signature is seen, and since when it moves."""

    signature: Signature
    same_since: float
    restless_since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is on disk under one name.

    A ready finding has facts and a revision; every other has a reason. `look_again_at` (monotonic
    seconds) is when a look may find it changed by the mere passing of time. `racy` says that the files
    were so young when they were digested that a later write could hide behind the same signature.
    """

    signature: Signature
    state: AdapterState
    reason: Reason | None = None
    facts: Facts | None = None
    revision: Revision | None = None
    stillness: Stillness | None = None
    look_again_at: float | None = None
    racy: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing of that name is in the prefix, which itself was there and readable."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The disk answered with an error, so nothing may be concluded."""

    reason: Reason


Examined = Finding | Absent | Unreadable
