"""What people are shown: the bodies both HTTP ports answer with, and how they follow from the values.

The worker serves them on vLLM's port and the API on its own, so they are here, once.
Names and shapes are a contract. Not here: how to ask Redis for the values (`queries`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from catalog.adapter import Adapter, AdapterState, Reason, WeightsFormat
from catalog.events import RefreshRequest
from catalog.status import (
    RefreshResult,
    RefreshStatus,
    WorkerAdapter,
    WorkerRevision,
    WorkerState,
    WorkerStatus,
)

_Item = TypeVar("_Item")


class RefreshBody(BaseModel):
    """The body of a manual refresh: `{}` looks at everything and waits for every worker."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default_factory=list, max_length=10_000, examples=[["sql_adapter"]])
    """Look at these adapters only; empty: at all."""
    dry_run: bool = False
    """Report what would change, and change nothing."""
    timeout: float = Field(default=30.0, gt=0, le=600)
    """Seconds to wait for the scan and for the workers."""


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


class Convergence(BaseModel):
    """How many living workers have observed a refresh, and which have not."""

    total: int
    converged: int
    pending: list[str]


class RejectedAdapter(BaseModel):
    """An adapter that is not served, and why."""

    id: str
    reason: ReasonView


class RefreshView(BaseModel):
    """The answer to a manual refresh."""

    message: str = Field(
        examples=["Successfully refreshed LoRA discovery. Found 5 total adapters, 2 newly discovered."]
    )
    discovered_adapters: list[str]
    """Served for the first time."""
    total_adapters: int
    updated_adapters: list[str]
    removed_adapters: list[str]
    rejected_adapters: list[RejectedAdapter]
    refresh_id: str
    status: RefreshStatus
    workers: Convergence


class AskedRefresh(BaseModel):
    """A refresh that somebody asked for. `status` is null once its result has expired, after an hour."""

    id: str = Field(examples=["0f3c1d2e4b5a6978"])
    object: Literal["lora_refresh"] = "lora_refresh"
    asked_by: str = Field(examples=["deploy", "10.0.0.7"])
    """The label of a key, or an address where keys are not asked for."""
    asked_at: datetime
    names: list[str]
    dry_run: bool
    status: RefreshStatus | None


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


def refresh_view(result: RefreshResult, workers: Sequence[WorkerStatus], *, epoch: str) -> RefreshView:
    """Return a refresh as it stands: `scanned` becomes `converged` once every worker has observed it."""
    answered = result.status is not RefreshStatus.PENDING
    pending = sorted(
        worker.id
        for worker in workers
        if not answered or worker.epoch != epoch or worker.observed_seq < result.seq
    )
    status = result.status
    if status is RefreshStatus.SCANNED and not pending:
        status = RefreshStatus.CONVERGED
    return RefreshView(
        message=_sentence(result),
        discovered_adapters=list(result.discovered),
        total_adapters=result.total,
        updated_adapters=list(result.updated),
        removed_adapters=list(result.removed),
        rejected_adapters=[
            RejectedAdapter(id=name, reason=ReasonView(code=reason.code, message=reason.message))
            for name, reason in sorted(result.rejected.items())
        ],
        refresh_id=result.id,
        status=status,
        workers=Convergence(total=len(workers), converged=len(workers) - len(pending), pending=pending),
    )


def asked_refresh(request: RefreshRequest, status: RefreshStatus | None) -> AskedRefresh:
    """Return who asked for what, and how far it has come."""
    return AskedRefresh(
        id=request.id,
        asked_by=request.asked_by,
        asked_at=request.at,
        names=list(request.names),
        dry_run=request.dry_run,
        status=status,
    )


def out_of_time(view: RefreshView) -> RefreshView:
    """Return what to answer when the time is up: `partial` after the scan, `timeout` before it."""
    late = {RefreshStatus.PENDING: RefreshStatus.TIMEOUT, RefreshStatus.SCANNED: RefreshStatus.PARTIAL}
    return view.model_copy(update={"status": late.get(view.status, view.status)})


def _sentence(result: RefreshResult) -> str:
    found = f"Found {result.total} total adapters, {len(result.discovered)} newly discovered."
    match result.status:
        case RefreshStatus.PENDING:
            return "LoRA discovery was asked for; the watcher has not answered yet."
        case RefreshStatus.FAILED:
            return result.error.message if result.error else "LoRA discovery failed."
        case _ if result.dry_run:
            return f"Dry run of LoRA discovery, nothing was changed. {found}"
        case _:
            return f"Successfully refreshed LoRA discovery. {found}"
