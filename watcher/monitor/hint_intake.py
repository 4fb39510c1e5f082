"""Takes hints from the notifier into the work queue: a storm of them costs one examination a name."""

import asyncio
import time

from loradrop.catalog.adapter import Reason
from loradrop.watcher.monitor.scanner import Scanner
from loradrop.watcher.monitor.work_queue import WorkQueue
from loradrop.watcher.notify.notifier import Hint
from loradrop.watcher.state.counters import Counters
from loradrop.watcher.state.prefix_state import PrefixState


class HintIntake:
    """What a notifier calls. `wakeup` is set where a hint asks for something."""

    def __init__(
        self,
        state: PrefixState,
        queue: WorkQueue,
        scanner: Scanner,
        wakeup: asyncio.Event,
        *,
        counters: Counters,
    ) -> None:
        """Note hints in `state`, and ask `queue` and `scanner` for what they call for."""
        self._state = state
        self._queue = queue
        self._scanner = scanner
        self._wakeup = wakeup
        self._counters = counters

    def hear(self, hint: Hint) -> None:
        """Take a hint."""
        self._counters.notifications += 1
        name = hint.name
        if name is not None and self._is_coming(name) and not hint.arrived:
            self._counters.coalesced += 1
            return
        if name is None:
            self._scanner.want()
        else:
            self._counters.coalesced += self._queue.is_hinted(name)
            if self._queue.add(name):
                self._state.observe_hint(name, now=time.monotonic(), arrived=hint.arrived)
            else:
                self._scanner.want()
        self._wakeup.set()

    def hear_lost(self, reason: Reason | None) -> None:
        """Note that hints have stopped, or (None) come again."""
        self._scanner.notifier_lost(reason)
        self._wakeup.set()

    def _is_coming(self, name: str) -> bool:
        """Return whether the examination that is due anyway will tell what a hint could."""
        return self._state.is_unsettled(name) and self._queue.is_only_due(name)
