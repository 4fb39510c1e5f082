"""Manual refreshes as clients send and see them, on both ports. Names and shapes are a contract."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from loradrop.catalog.adapter import Reason
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.http.views import shared_fields
from loradrop.catalog.status import RefreshResult, RefreshStatus, WorkerStatus

_MAX_NAME_BYTES = 255
"""Of a directory's name, on every filesystem in use."""


def _name(name: str) -> str:
    if len(name.encode()) > _MAX_NAME_BYTES:  # that UTF-8 can hold it is already checked with its length
        raise ValueError(f"must have at most {_MAX_NAME_BYTES} bytes")
    return name


class RefreshBody(BaseModel):
    """The body of a manual refresh: `{}` looks at everything and waits for every worker."""

    model_config = ConfigDict(extra="forbid")

    names: list[Annotated[str, Field(max_length=255), AfterValidator(_name)]] = Field(
        default_factory=list, max_length=1_000, examples=[["sql_adapter"]]
    )
    """Look at these adapters only; empty: at all."""
    dry_run: bool = False
    """Report what would change, and change nothing."""
    confirm_removals: bool = False
    """Remove what the watcher holds back because so much vanished at once: it is meant."""
    timeout: float = Field(default=30.0, gt=0, le=600)
    """Seconds to wait for the scan and for the workers."""


class Convergence(BaseModel):
    """How many living workers have observed a refresh, and which have not."""

    total: int
    converged: int
    pending: list[str]


class RejectedAdapter(BaseModel):
    """An adapter that is not served, and why."""

    id: str
    reason: Reason


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
    omitted: dict[str, int] = Field(examples=[{"discovered_adapters": 12_000}])
    """How many adapters each list above leaves out, where it would be longer than 64 KiB."""
    refresh_id: str
    status: RefreshStatus
    workers: Convergence


class AskedRefresh(BaseModel):
    """A refresh that a client asked for. `status` is null once its result has expired, after an hour."""

    id: str = Field(examples=["0f3c1d2e4b5a6978"])
    object: Literal["lora_refresh"] = "lora_refresh"
    asked_by: str = Field(examples=["deploy", "10.0.0.7"])
    """The label of a key, or an address where keys are not asked for."""
    asked_at: datetime
    names: list[str]
    dry_run: bool
    confirm_removals: bool
    status: RefreshStatus | None


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
            RejectedAdapter(id=name, reason=reason) for name, reason in sorted(result.rejected.items())
        ],
        omitted={f"{name}_adapters": number for name, number in result.omitted.items()},
        refresh_id=result.id,
        status=status,
        workers=Convergence(total=len(workers), converged=len(workers) - len(pending), pending=pending),
    )


def asked_refresh(request: RefreshRequest, status: RefreshStatus | None) -> AskedRefresh:
    """Return who asked for what, and how far it has come."""
    return AskedRefresh(asked_at=request.at, status=status, **shared_fields(AskedRefresh, request))


def out_of_time(view: RefreshView) -> RefreshView:
    """Return what to answer when the time is up: `partial` after the scan, `timeout` before it."""
    late = {RefreshStatus.PENDING: RefreshStatus.TIMEOUT, RefreshStatus.SCANNED: RefreshStatus.PARTIAL}
    return view.model_copy(update={"status": late.get(view.status, view.status)})


def _sentence(result: RefreshResult) -> str:
    found = f"Found {result.total} total adapters, {result.newly_discovered} newly discovered."
    match result.status:
        case RefreshStatus.PENDING:
            return "LoRA discovery was asked for; the watcher has not answered yet."
        case RefreshStatus.FAILED:
            return result.error.message if result.error else "LoRA discovery failed."
        case _ if result.dry_run:
            return f"Dry run of LoRA discovery, nothing was changed. {found}"
        case _:
            return f"Successfully refreshed LoRA discovery. {found}"
