"""Why the watcher cannot be trusted at the moment, by source: said once in the log, and kept for people."""

import logging
from collections.abc import Callable
from typing import Literal

from loradrop.catalog.adapter import Reason

_logger = logging.getLogger(__name__)

Source = Literal["prefix", "device", "removal", "notifier", "coverage", "disk"]
_ORDER: tuple[Source, ...] = ("prefix", "device", "disk", "removal", "notifier", "coverage")

SLOW = Reason("disk_slow", "The disk has not answered for a minute. Check what is mounted at the prefix.")
AWAY = Reason(
    "prefix_device_changed",
    "Another filesystem is at the prefix now, and adapters are missing there. None is removed until it is"
    " mounted again, or until `loradrop refresh --confirm-removals` says that this is meant.",
)


class Health:
    """What is wrong. `on_change` is called when the most important reason changes."""

    def __init__(self) -> None:
        """Begin healthy."""
        self.on_change: Callable[[], None] = lambda: None
        self._troubles: dict[Source, Reason] = {}

    @property
    def reason(self) -> Reason | None:
        """The most important trouble, or None."""
        return next((self._troubles[source] for source in _ORDER if source in self._troubles), None)

    def set(self, source: Source, reason: Reason | None) -> None:
        """Note a trouble of `source`, or that it is well (None); the same again says nothing new."""
        known = self._troubles.get(source)
        if reason is None:
            if self._troubles.pop(source, None) is None:
                return
            _logger.info("Watcher has recovered source=%s", source)
        else:
            self._troubles[source] = reason
            if known is not None and known.code == reason.code:
                return
            _logger.warning("Watcher is degraded source=%s reason=%s", source, reason)
        self.on_change()
