"""What people are shown: the bodies both HTTP ports answer with, and how they follow from the values.

The worker serves them on vLLM's port and the API on its own, so they are here, once.
Names and shapes are a contract. Not here: refreshes (`refresh_views`), and how to ask Redis for the values
(`queries`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, WeightsFormat
from loradrop.catalog.status import WorkerAdapter, WorkerRevision, WorkerState, WorkerStatus

_Item = TypeVar("_Item")


class ReasonView(BaseModel):
    """Why: a stable code, and a sentence that says what to do."""

    code: str = Field(examples=["weights_truncated"])
    message: str

    @classmethod
    def of(cls, reason: Reason | None) -> Self | None:
        """Return the view of `reason`, None for None."""
        return None if reason is None else cls(code=reason.code, message=reason.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOnWorker:
    """What one worker has made of an adapter. `load_seconds` is what its last load took, copy included."""

    state: WorkerState
    revision: str | None = None
    reason: Reason | None = None
    loads: int = 0
    load_seconds: float | None = None
    last_used: datetime | None = None
    revisions: tuple[WorkerRevision, ...] = ()


class AdapterView(BaseModel):
    """One adapter: what should be served, what the disk says, and what every worker has."""

    id: str = Field(examples=["sql_adapter"])
    object: Literal["lora_adapter"] = "lora_adapter"
    revision: str | None
    """The served bytes; null where they have never been ready."""
    state: AdapterState
    reason: ReasonView | None
    path: str
    """Relative to `prefix`."""
    prefix: str
    format: WeightsFormat | None
    size_bytes: int
    rank: int | None
    base_model: str | None
    discovered_at: datetime
    updated_at: datetime
    workers: dict[str, AdapterOnWorker]
    """Last: see `rows`."""


class WorkerView(BaseModel):
    """One living worker. `lag`: changes not observed yet; `degraded`: why not to trust its answers."""

    id: str = Field(examples=["gpu-1:8000"])
    object: Literal["lora_worker"] = "lora_worker"
    base_model: str
    url: str
    observed_seq: int
    lag: int
    adapters: dict[str, int]
    last_heartbeat: datetime
    degraded: ReasonView | None


class Listed(BaseModel, Generic[_Item]):
    """A list, in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[_Item]


@dataclass(frozen=True, slots=True)
class WorkerPicture:
    """A living worker and what it has said about single adapters."""

    status: WorkerStatus
    adapters: Mapping[str, WorkerAdapter]

    def has_observed(self, epoch: str, seq: int) -> bool:
        """Return whether the worker has applied the catalog of `epoch` up to `seq`."""
        return self.status.epoch == epoch and self.status.observed_seq >= seq

    def made_of(self, adapter: Adapter, epoch: str, *, listed: AdapterOnWorker) -> AdapterOnWorker | None:
        """Return what the worker has made of `adapter`; None where it cannot know of it yet.

        `listed` is what a worker has made of it that knows of it and has nothing to say.
        """
        said = self.adapters.get(adapter.name)
        if said is not None:
            return AdapterOnWorker(
                state=said.state,
                revision=said.revision,
                reason=said.reason,
                loads=said.loads,
                load_seconds=said.load_seconds,
                last_used=said.last_used,
                revisions=said.revisions,
            )
        if adapter.revision is None or not self.has_observed(epoch, adapter.seq):
            return None
        return listed


def adapter_view(adapter: Adapter, epoch: str, workers: Mapping[str, WorkerPicture]) -> AdapterView:
    """Return one adapter with its state on every worker."""
    listed = AdapterOnWorker(state=WorkerState.LISTED, revision=adapter.revision)
    return AdapterView(
        id=adapter.name,
        revision=adapter.revision,
        state=adapter.state,
        reason=ReasonView.of(adapter.reason),
        path=adapter.path,
        prefix=adapter.prefix,
        format=adapter.format,
        size_bytes=adapter.size_bytes,
        rank=adapter.rank,
        base_model=adapter.base_model,
        discovered_at=adapter.discovered_at,
        updated_at=adapter.updated_at,
        workers={
            worker_id: made
            for worker_id, picture in workers.items()
            if (made := picture.made_of(adapter, epoch, listed=listed)) is not None
        },
    )


def worker_view(status: WorkerStatus, *, epoch: str, seq: int) -> WorkerView:
    """Return one worker; in another epoch than the catalog's, all of the catalog is ahead of it."""
    observed = status.observed_seq if status.epoch == epoch else 0
    return WorkerView(
        id=status.id,
        base_model=status.base_model,
        url=status.url,
        observed_seq=status.observed_seq,
        lag=max(0, seq - observed),
        adapters=dict(status.counts),
        last_heartbeat=status.last_heartbeat,
        degraded=ReasonView.of(status.degraded),
    )
