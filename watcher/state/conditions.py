"""Why the watcher cannot be trusted at the moment, by source: logged once, and reported while it lasts."""

import logging
from collections.abc import Callable
from typing import Literal

from loradrop.catalog.adapter import Reason
from loradrop.catalog.printable import printable

_logger = logging.getLogger(__name__)

Source = Literal["prefix", "device", "removal", "notifier", "coverage", "disk"]
_ORDER: tuple[Source, ...] = ("prefix", "device", "disk", "removal", "notifier", "coverage")

SLOW = Reason("disk_slow", "The disk has not answered for a minute. Check what is mounted at the prefix.")
AWAY = Reason(
    "prefix_device_changed",
    "Another filesystem is at the prefix now, and adapters are missing there. None is removed until it is"
    " mounted again, or until `loradrop refresh --confirm-removals` says that this is meant.",
)


def mass_removal(count: int, grace_seconds: float) -> Reason:
    """Return why `count` adapters that vanished stay served."""
    return Reason(
        "mass_removal",
        f"{count} adapters vanished at once. They stay served for {grace_seconds:g} s;"
        " `loradrop refresh --confirm-removals` says that this is meant.",
    )


class Conditions:
    """What degrades the watcher. `on_change` is called when something begins or ends to."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Begin healthy."""
        self._on_change = on_change
        self._reasons: dict[Source, Reason] = {}

    @property
    def reason(self) -> Reason | None:
        """The most important reason, or None."""
        return next((self._reasons[source] for source in _ORDER if source in self._reasons), None)

    def set(self, source: Source, reason: Reason | None) -> None:
        """Note what is wrong with `source`, or that nothing is (None); the same again is not logged."""
        known = self._reasons.get(source)
        if reason is None:
            if self._reasons.pop(source, None) is None:
                return
            _logger.info("Watcher has recovered source=%s", source)
        else:
            self._reasons[source] = reason
            if known is not None and known.code == reason.code:
                return
            _logger.warning("Watcher is degraded source=%s reason=%s", source, printable(str(reason)))
        self._on_change()
