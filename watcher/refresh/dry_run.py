"""A refresh that changes nothing: the same examinations, and the same plan, on a copy of the state."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult
from loradrop.watcher.monitor.evaluation import ExamineRequest
from loradrop.watcher.monitor.monitor import Monitor
from loradrop.watcher.refresh.refresh import answer, failed
from loradrop.watcher.state.planning import mass_removal, served, wanted_record
from loradrop.watcher.state.prefix_state import PrefixState


async def preview(
    request: RefreshRequest, monitor: Monitor, state: PrefixState, records: Mapping[str, Adapter], *, seq: int
) -> RefreshResult:
    """Return what a refresh would answer now, had it been asked to change something."""
    state = state.copy()
    deadline = time.monotonic() + request.timeout_seconds
    before = dict(records)
    try:
        if request.names:
            names = state.examinable(request.names, await monitor.list_names())
        else:
            names = await _differing(monitor, state)
        examined = set(names)
        while names:
            due = await _examine(monitor, state, names)
            names = {name for name, at in due.items() if at < deadline and state.is_unsettled(name)}
            if names:
                await asyncio.sleep(max(0.0, min(due[name] for name in names) - time.monotonic()))
    except DiscoveryError as error:
        return failed(request, error.reason, at=datetime.now(UTC))
    after = _foreseen(state, examined, before)
    return answer(request, served(before), after, total=len(served(after)), seq=seq, at=datetime.now(UTC))


async def _differing(monitor: Monitor, state: PrefixState) -> set[str]:
    found = await monitor.scan()
    state.observe_root(found.identity)
    state.observe_listing(found.names)
    return {*found.changed, *state.doubtful()}


async def _examine(monitor: Monitor, state: PrefixState, names: set[str]) -> dict[str, float]:
    """Examine `names`, keep what was found in `state`, and return when to examine which again."""
    due: dict[str, float] = {}
    requests = [ExamineRequest(name, state.finding(name)) for name in sorted(names)]
    while requests:
        result = await monitor.examine(requests)
        if result.error is not None:
            raise result.error
        if result.identity is not None:
            state.observe_root(result.identity)
        if result.listed is not None:
            state.observe_listing(result.listed)
        for name, examined in result.found.items():
            look_again = state.learn(name, examined, now=time.monotonic())
            if look_again is not None:
                due[name] = look_again
        requests = list(result.left)
    return due


def _foreseen(state: PrefixState, examined: set[str], records: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Return what the catalog would hold once what was examined is settled, or its removal proven."""
    after = dict(records)
    now = datetime.now(UTC)
    held = mass_removal(state, records)
    for name in examined:
        seen = state.names.get(name)
        if seen is not None and seen.absence is not None and name not in held:
            after.pop(name, None)
        elif (record := wanted_record(state, name, records, now=now)) is not None:
            after[record.name] = record
    return after
