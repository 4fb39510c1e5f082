"""How tests of the reconciler see it: from a request's side, and from an operator's."""

from pathlib import Path
from typing import Any

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision
from loradrop.catalog.status import WorkerState
from loradrop.worker.serving.reconciler import Reconciler
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter, revision

INCOMPLETE = Reason("weights_missing", "adapter_model.safetensors is not there yet.")


def wanted(name: str, digest: Revision | None, **changes: Any) -> dict[str, Adapter]:
    """Return the catalog's change: `name` should be served with revision `digest`."""
    return {name: an_adapter(name, revision=digest, **changes)}


def catalog_of(*digits: str) -> dict[str, Adapter]:
    """Return adapters `a1`, `a2` and so on, each with a revision of its own."""
    return {f"a{digit}": an_adapter(f"a{digit}", revision=revision(digit)) for digit in digits}


def never_ready(name: str, state: AdapterState, reason: Reason | None = INCOMPLETE) -> dict[str, Adapter]:
    return {name: an_adapter(name, revision=None, state=state, reason=reason)}


async def until_serves(reconciler: Reconciler, name: str, digest: Revision) -> None:
    """Wait until requests for `name` are answered from `digest`."""

    async def serves() -> bool:
        return (await reconciler.resolve(name)).revision == digest

    await wait_until(serves, timeout=5, description=f"{name} is served from {digest[:4]}")


async def until_state(reconciler: Reconciler, name: str, state: WorkerState) -> None:
    """Wait until the reconciler reports `name` in `state`."""
    await wait_until(lambda: state_of(reconciler, name) is state, timeout=5, description=f"{name} is {state}")


async def until_forgotten(reconciler: Reconciler, name: str) -> None:
    """Wait until nothing is left to say about `name`."""
    await wait_until(
        lambda: name not in reconciler.status.snapshot() and not any(reconciler.status.counts().values()),
        timeout=5,
        description=f"{name} is forgotten",
    )


def state_of(reconciler: Reconciler, name: str) -> WorkerState | None:
    report = reconciler.status.snapshot().get(name)
    return report.state if report is not None else None


def a_directory(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / "loras" / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory
