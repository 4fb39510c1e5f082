"""The entries of the two streams: changes of the catalog, and refresh requests."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from loradrop.catalog.adapter import AdapterState, Reason, Revision, Timestamp


class EventType(StrEnum):
    """What happened to a record of the catalog."""

    ADDED = "added"
    """A name is served for the first time."""
    MODIFIED = "modified"
    """A served name has a new revision."""
    DELETED = "deleted"
    """A name is gone from the prefix, and from the catalog."""
    NOTED = "noted"
    """Only the state on disk or its reason changed; what is served did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterEvent:
    """One entry of the event stream. Within an epoch, `seq` has no gaps."""

    epoch: str
    seq: int
    type: EventType
    name: str
    revision: Revision | None
    state: AdapterState | None
    reason: Reason | None
    at: Timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """A client asks the watcher for a scan now.

    An empty `names` means the whole prefix. A dry run reports what it would change and changes nothing.
    `timeout_seconds` bounds how long the watcher waits for files that are still settling.
    `confirm_removals` confirms a mass removal that the watcher holds back. `asked_by` is the label of the
    client's key, or its address where no key is configured.
    """

    id: str
    at: Timestamp
    names: tuple[str, ...] = ()
    dry_run: bool = False
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    confirm_removals: bool = False
    asked_by: str = ""
