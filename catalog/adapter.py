"""An adapter, and the words for what is known about it.

A record of the catalog says two things at once: what should be *served* (`revision`, the last
complete and valid bytes seen) and what is on *disk now* (`state` and `reason`). They differ while an
update is being copied or after a bad one: the last good revision stays served, and the reason shows.

Not here: how a record travels (`wire`), where it is kept (`store`), what a worker made of it (`status`).
"""

import re
import sys
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType

import msgspec

Revision = NewType("Revision", str)
"""64 hexadecimal digits: the digest of an adapter's bytes (see `catalog.revision`)."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment, with its time zone: two that are read from Redis can be compared."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
"""A duration that JSON can hold: neither infinite nor NaN."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A name that needs no quoting in a URL, a shell or the `model` field of a request."""


class AdapterState(StrEnum):
    """What the disk says about an adapter."""

    INCOMPLETE = "incomplete"
    """Files are missing or shorter than they declare: a copy is under way, or was interrupted."""
    SETTLING = "settling"
    """Complete, but still too young or still changing to be trusted."""
    READY = "ready"
    """Complete, still and valid: these bytes are published."""
    REJECTED = "rejected"
    """Will not work until its bytes change; the reason says why."""
    UNKNOWN = "unknown"
    """The disk could not be read, so nothing may be concluded."""


class WeightsFormat(StrEnum):
    """Which of the two files vLLM reads holds the weights."""

    SAFETENSORS = "safetensors"
    PICKLE = "bin"

    @property
    def filename(self) -> str:
        """The file's name inside the adapter's directory."""
        return f"adapter_model.{self}"


CONFIG_FILENAME = "adapter_config.json"
"""The PEFT configuration every adapter holds."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause: a stable code for programs, and a sentence for operators that says what to do."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One record of the catalog.

    `revision`, `size_bytes`, `format`, `rank` and `base_model` describe the served bytes: a record
    without a revision has never been ready. `path` is relative to `prefix`, an absolute directory on
    the watcher's host. `seq` is the catalog's sequence number at the record's last change.
    """

    name: str
    prefix: str
    path: str
    revision: Revision | None
    state: AdapterState
    discovered_at: Timestamp
    updated_at: Timestamp
    reason: Reason | None = None
    size_bytes: int = 0
    format: WeightsFormat | None = None
    rank: int | None = None
    base_model: str | None = None
    seq: int = 0


def is_usable_name(name: str) -> bool:
    """Return whether `name` may be served: `NAME_PATTERN`, in full."""
    return NAME_PATTERN.fullmatch(name) is not None
