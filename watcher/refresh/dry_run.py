"""A refresh that changes nothing: the same looks at the disk, on a copy of what is known of it."""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult
from loradrop.watcher.monitor.evaluation import Question
from loradrop.watcher.monitor.monitor import Lookout
from loradrop.watcher.refresh.refresh import answer, failed
from loradrop.watcher.state.changes import changed_records
from loradrop.watcher.state.prefix_state import Disk, served


async def preview(
    request: RefreshRequest, lookout: Lookout, records: Mapping[str, Adapter], *, seq: int
) -> RefreshResult:
    """Return what a refresh would answer now, had it been asked to change something."""
    disk = lookout.disk.copy()
    deadline = time.monotonic() + request.timeout_seconds
    records = dict(records)
    try:
        if request.names:
            names = disk.lookable(request.names, records)
        else:
            names = await _differing(lookout, disk, records)
        touched = set(names)
        while names:
            due = await _examine(lookout, disk, names, records)
            names = {name for name, at in due.items() if at < deadline and disk.is_unsettled(name)}
            if names:
                await asyncio.sleep(max(0.0, min(due[name] for name in names) - time.monotonic()))
    except DiscoveryError as error:
        return failed(request, error.reason)
    before = served(records)
    _apply(disk, touched, records)
    return answer(request, before, records, seq=seq)


async def _differing(lookout: Lookout, disk: Disk, records: Mapping[str, Adapter]) -> set[str]:
    found, _ = await lookout.batches.scan(lookout.look_at_all)
    disk.compare(found.names, records)
    return {*found.changed, *disk.missing, *disk.unreadable, *disk.absent}


async def _examine(
    lookout: Lookout, disk: Disk, names: set[str], records: Collection[str]
) -> dict[str, float]:
    """Examine `names`, keep what was found in `disk`, and return when to look again at which."""
    due: dict[str, float] = {}
    questions = [Question(name, disk.findings.get(name)) for name in sorted(names)]
    while questions:
        answers = await lookout.batches.examine(questions)
        if answers.error is not None:
            raise answers.error
        if answers.listed is not None:
            disk.compare(answers.listed, records)
        for name, examined in answers.found.items():
            look_again = disk.learn(name, examined, hurried=True)
            if look_again is not None:
                due[name] = look_again
        questions = list(answers.left)
    return due


def _apply(disk: Disk, touched: set[str], records: dict[str, Adapter]) -> None:
    now = datetime.now(UTC)
    held = set(disk.removals(records).held)
    for name in touched & disk.absent.keys() - held:
        records.pop(name, None)
    records.update(
        {record.name: record for record in changed_records(disk, touched, records, records, now=now)}
    )
