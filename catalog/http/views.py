"""What people are shown: the bodies both HTTP ports answer with, and how they follow from the values.

The worker serves them on vLLM's port and the API on its own, so they are here, once.
Names and shapes are a contract. Not here: refreshes (`refresh_views`), and how to ask Redis for the values
(`queries`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, WeightsFormat
from loradrop.catalog.status import WorkerAdapter, WorkerState, WorkerStatus

_Item = TypeVar("_Item")


class AdapterView(BaseModel):
    """One adapter: what should be served, what the disk says, and what every worker has."""

    id: str = Field(examples=["sql_adapter"])
    object: Literal["lora_adapter"] = "lora_adapter"
    revision: str | None
    """The served bytes; null where they have never been ready."""
    state: AdapterState
    reason: Reason | None
    path: str
    """Relative to `prefix`."""
    prefix: str
    format: WeightsFormat | None
    size_bytes: int
    rank: int | None
    base_model: str | None
    discovered_at: datetime
    updated_at: datetime
    workers: dict[str, WorkerAdapter]
    """Last: see `adapter_stream`."""


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
    degraded: Reason | None


class Listed(BaseModel, Generic[_Item]):
    """A list, in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[_Item]


@dataclass(frozen=True, slots=True)
class ReportedWorker:
    """A living worker and what it has said about single adapters."""

    status: WorkerStatus
    adapters: Mapping[str, WorkerAdapter]

    def has_observed(self, epoch: str, seq: int) -> bool:
        """Return whether the worker has applied the catalog of `epoch` up to `seq`."""
        return self.status.epoch == epoch and self.status.observed_seq >= seq

    def state_of(self, adapter: Adapter, epoch: str, *, listed: WorkerAdapter) -> WorkerAdapter | None:
        """Return the state of `adapter` on the worker; None where the worker cannot know of it yet.

        `listed` is the default where the worker applied the record and reported nothing.
        """
        said = self.adapters.get(adapter.name)
        if said is not None:
            return said
        if adapter.revision is None or not self.has_observed(epoch, adapter.seq):
            return None
        return listed


def adapter_view(adapter: Adapter, epoch: str, workers: Mapping[str, ReportedWorker]) -> AdapterView:
    """Return one adapter with its state on every worker."""
    listed = WorkerAdapter(state=WorkerState.LISTED, revision=adapter.revision)
    return AdapterView(
        id=adapter.name,
        revision=adapter.revision,
        state=adapter.state,
        reason=adapter.reason,
        path=adapter.path,
        prefix=adapter.prefix,
        format=adapter.format,
        size_bytes=adapter.size_bytes,
        rank=adapter.rank,
        base_model=adapter.base_model,
        discovered_at=adapter.discovered_at,
        updated_at=adapter.updated_at,
        workers={
            worker_id: state
            for worker_id, worker in workers.items()
            if (state := worker.state_of(adapter, epoch, listed=listed)) is not None
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
        degraded=status.degraded,
    )
