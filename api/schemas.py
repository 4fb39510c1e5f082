"""Bodies only the API answers with; those it shares with the worker's port are `catalog.http.views`."""

from datetime import datetime

from pydantic import BaseModel, Field

from loradrop.catalog.adapter import Reason
from loradrop.catalog.http.views import shared_fields
from loradrop.catalog.status import WatcherMode, WatcherStatus


class Problem(BaseModel):
    """What went wrong, and what to do: problem details as of RFC 9457."""

    type: str = Field(examples=["urn:loradrop:problem:no_watcher"])
    """Stands for the kind of problem; `about:blank` where the status says it all."""
    title: str = Field(examples=["No watcher is alive"])
    status: int = Field(examples=[503])
    detail: str = Field(examples=["No watcher is alive to look at the prefix. Start one, then ask again."])
    code: str = Field(examples=["no_watcher"])
    """Stable, for programs."""


class Check(BaseModel):
    """One condition of being ready; `reason` says what is missing where it is not met."""

    name: str = Field(examples=["redis"])
    ok: bool
    reason: Reason | None = None


class WatcherView(BaseModel):
    """The watcher that publishes. `degraded` is why changes may be noticed late at the moment."""

    id: str
    prefix: str
    mode: WatcherMode
    degraded: Reason | None
    heartbeat_at: datetime
    last_scan_at: datetime | None
    last_scan_seconds: float | None
    interval_seconds: float
    adapters: dict[str, int]

    @classmethod
    def of(cls, status: WatcherStatus) -> "WatcherView":
        """Return the view of a heartbeat."""
        counts = {str(state): count for state, count in status.counts.items()}
        return cls(id=status.owner, adapters=counts, **shared_fields(cls, status))


class Readiness(BaseModel):
    """Whether refreshes can be answered and the catalog shown, and if not, why not.

    A degraded watcher is still ready: changes are found by the periodic rescan.
    """

    ready: bool
    checks: list[Check]
    watcher: WatcherView | None
    epoch: str | None
    seq: int | None


class Liveness(BaseModel):
    """The process answers."""

    status: str = "ok"
