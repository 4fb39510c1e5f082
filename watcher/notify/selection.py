"""Which notifier a prefix gets: what was asked for, or what works where it lies."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from loradrop.catalog.adapter import Reason
from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.status import WatcherMode
from loradrop.watcher.notify.lost import identity_at, replaced
from loradrop.watcher.notify.notifier import Hint, Notifications, Notifier
from loradrop.watcher.notify.watchdog_notifier import WatchdogNotifier
from loradrop.watcher.prefix.filesystem import filesystem_type, is_shared
from loradrop.watcher.settings import NotifierChoice, Settings
from loradrop.watcher.timings import Timings

if sys.platform == "linux":
    from loradrop.watcher.notify.inotify import InotifyNotifier


def notifications_for(
    settings: Settings,
    timings: Timings,
    *,
    on_hint: Callable[[Hint], None],
    on_lost: Callable[[Reason | None], None],
) -> Notifications:
    """Return the notifications `settings` ask for; run them to begin."""
    return Notifications(
        lambda: make_notifier(
            settings.notifier, settings.prefix, settings.roots, filesystem_type(settings.prefix), on_hint
        ),
        on_hint=on_hint,
        on_lost=on_lost,
        timings=timings,
    )


class RescanOnly(Notifier):
    """No notifications at all; with `attached`, a replaced prefix is still noticed."""

    mode = WatcherMode.RESCAN

    def __init__(self, prefix: Path, *, attached: bool) -> None:
        """Remember which directory the prefix is; raises NotifierLost."""
        self._prefix = prefix
        self._identity = identity_at(prefix) if attached else None

    async def follow(self) -> None:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()

    async def prove_attached(self) -> None:
        """Return where the prefix is still the same directory; raises NotifierLost."""
        if self._identity is not None and identity_at(self._prefix) != self._identity:
            raise replaced(self._prefix)


def make_notifier(
    choice: NotifierChoice,
    prefix: Path,
    roots: Roots,
    filesystem: str | None,
    on_hint: Callable[[Hint], None],
) -> Notifier:
    """Return the notifier for `prefix`, which lies on `filesystem`, and for links into `roots`.

    Raises NotifierLost.
    """
    match choice:
        case NotifierChoice.NONE:
            return RescanOnly(prefix, attached=False)
        case NotifierChoice.WATCHDOG:
            return WatchdogNotifier(prefix, on_hint)
        case NotifierChoice.AUTO if is_shared(filesystem):
            return RescanOnly(prefix, attached=True)
    if sys.platform == "linux":
        return InotifyNotifier(prefix, on_hint, roots)
    return WatchdogNotifier(prefix, on_hint)
