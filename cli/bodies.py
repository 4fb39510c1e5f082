"""What the API answers with, as far as the commands read it. Extra fields are left alone."""

from typing import Annotated, Any, Generic, NotRequired, TypedDict, TypeVar

import msgspec

_Item = TypeVar("_Item")
_Timestamp = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Listed(TypedDict, Generic[_Item]):
    """A list, in OpenAI's shape."""

    data: list[_Item]


class ReasonBody(TypedDict):
    """A code and a message."""

    code: str
    message: str


class OnWorkerBody(TypedDict):
    """An adapter on one worker."""

    state: str
    revision: str | None
    reason: ReasonBody | None


class AdapterBody(TypedDict):
    """An adapter."""

    id: str
    state: str
    revision: str | None
    reason: ReasonBody | None
    rank: int | None
    size_bytes: _Size
    workers: dict[str, OnWorkerBody]


class WorkerBody(TypedDict):
    """A worker."""

    id: str
    base_model: str
    url: str
    observed_seq: int
    lag: int
    adapters: dict[str, int]
    last_heartbeat: _Timestamp
    degraded: ReasonBody | None


class RejectedBody(TypedDict):
    """A rejected adapter of a refresh."""

    id: str
    reason: ReasonBody


class ConvergenceBody(TypedDict):
    """The workers of a refresh."""

    total: int
    converged: int
    pending: list[str]


class RefreshBody(TypedDict):
    """A refresh."""

    message: str
    status: str
    refresh_id: str
    discovered_adapters: list[str]
    updated_adapters: list[str]
    removed_adapters: list[str]
    rejected_adapters: list[RejectedBody]
    omitted: NotRequired[dict[str, int]]
    workers: ConvergenceBody


class CheckBody(TypedDict):
    """One condition of being ready."""

    name: str
    ok: bool
    reason: ReasonBody | None


class WatcherBody(TypedDict):
    """The watcher that publishes."""

    id: str
    prefix: str
    mode: str
    degraded: ReasonBody | None
    last_scan_at: _Timestamp | None
    adapters: dict[str, int]


class ReadinessBody(TypedDict):
    """The answer of /readyz."""

    ready: bool
    checks: list[CheckBody]
    watcher: WatcherBody | None
    epoch: str | None
    seq: int | None


def is_like(body: Any, kind: Any) -> bool:
    """Return whether `body` holds all that `kind` says."""
    try:
        msgspec.convert(body, kind)
    except msgspec.ValidationError:
        return False
    return True
