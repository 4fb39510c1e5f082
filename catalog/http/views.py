"""The bodies both HTTP ports answer with, and how they follow from the values of the catalog.

The worker serves them on vLLM's port and the API on its own, so they are here, once.
Names and shapes are a contract. Not here: refreshes (`refresh_views`), and how to ask Redis for the values
(`queries`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

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

    def state_of(self, adapter: Adapter, epoch: str, *, listed: WorkerAdapter) -> WorkerAdapter | None:
        """Return the state of `adapter` on the worker; None where the worker cannot know of it yet.

        `listed` is the default where the worker applied the record and reported nothing.
        """
        said = self.adapters.get(adapter.name)
        if said is not None:
            return said
        has_observed = self.status.epoch == epoch and self.status.observed_seq >= adapter.seq
        return listed if has_observed and adapter.revision is not None else None


def shared_fields(view: type[BaseModel], value: object) -> dict[str, Any]:
    """Return what `value` says for the fields of `view`, by those names that both have."""
    return {name: getattr(value, name) for name in view.model_fields if hasattr(value, name)}


def adapter_view(adapter: Adapter, epoch: str, workers: Mapping[str, ReportedWorker]) -> AdapterView:
    """Return one adapter with its state on every worker."""
    listed = WorkerAdapter(state=WorkerState.LISTED, revision=adapter.revision)
    states = {
        worker_id: state
        for worker_id, worker in workers.items()
        if (state := worker.state_of(adapter, epoch, listed=listed)) is not None
    }
    return AdapterView(id=adapter.name, workers=states, **shared_fields(AdapterView, adapter))


def worker_view(status: WorkerStatus, *, epoch: str, seq: int) -> WorkerView:
    """Return one worker; in another epoch than the catalog's, all of the catalog is ahead of it."""
    observed = status.observed_seq if status.epoch == epoch else 0
    lag = max(0, seq - observed)
    return WorkerView(lag=lag, adapters=dict(status.counts), **shared_fields(WorkerView, status))
