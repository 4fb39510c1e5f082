"""How tests of the reconciler see it: from a request's side, and from an operator's."""

from pathlib import Path
from typing import Any

from catalog.adapter import Adapter, AdapterState, Reason, Revision
from catalog.status import WorkerState
from tests.catalog.values import an_adapter
from tests.waiting import wait_until
from worker.reconciler import Reconciler

INCOMPLETE = Reason("weights_missing", "adapter_model.safetensors is not there yet.")


def wanted(name: str, revision: Revision | None, **changes: Any) -> dict[str, Adapter]:
    """Return the catalog's change: `name` should be served with `revision`."""
    return {name: an_adapter(name, revision=revision, **changes)}


def never_ready(name: str, state: AdapterState, reason: Reason | None = INCOMPLETE) -> dict[str, Adapter]:
    return {name: an_adapter(name, revision=None, state=state, reason=reason)}


async def until_serves(reconciler: Reconciler, name: str, revision: Revision) -> None:
    """Wait until requests for `name` are answered from `revision`."""

    async def serves() -> bool:
        return (await reconciler.resolve(name)).revision == revision

    await wait_until(serves, timeout=5, description=f"{name} is served from {revision[:4]}")


async def until_state(reconciler: Reconciler, name: str, state: WorkerState) -> None:
    """Wait until the reconciler reports `name` in `state`."""
    await wait_until(lambda: state_of(reconciler, name) is state, timeout=5, description=f"{name} is {state}")


async def until_forgotten(reconciler: Reconciler, name: str) -> None:
    """Wait until nothing is left to say about `name`."""
    await wait_until(
        lambda: name not in reconciler.picture() and not any(reconciler.counts().values()),
        timeout=5,
        description=f"{name} is forgotten",
    )


def state_of(reconciler: Reconciler, name: str) -> WorkerState | None:
    report = reconciler.picture().get(name)
    return report.state if report is not None else None


def a_directory(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / "loras" / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory
