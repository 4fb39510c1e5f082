"""What looking at an adapter's directory concludes: values that threads make and the watcher keeps."""

from dataclasses import dataclass

from loradrop.catalog.adapter import AdapterState, Reason, Revision, WeightsFormat

Signature = bytes
"""Inode, size, mtime, ctime and device of an adapter's two files: equal signatures, equal bytes."""


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """Which directory the prefix is at the moment: a rename or a mount puts another one in its place."""

    device: int
    inode: int


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
