"""The watcher: takes the lease, compares the disk with the catalog, publishes what differs, for ever.

One task owns the state; notifications, scans, examinations and refresh requests only ring its bell. Events
are hints and the disk decides, so anything may be repeated, and whatever goes wrong has one answer: lead
again, list again, look again, publish the difference.

    run ── notifications, and sessions: lead, list, then ── turns: look, publish, answer refreshes
                                                         ── heartbeats
                                                         ── refresh requests

Not here: looking at the disk (`lookout`), writing the catalog (`ledger`), signals and flags (`__main__`).
"""

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

from catalog.adapter import Adapter, Reason
from catalog.errors import CatalogUnavailable, LeaseHeld, LeaseLost, LoradropError
from catalog.events import RefreshRequest
from catalog.status import RefreshResult, WatcherStatus
from catalog.store import Connection, Refreshes, Withdrawal
from watcher.changes import Changes
from watcher.disk import served
from watcher.examination import Examiner
from watcher.files import Roots
from watcher.inspection import Rules
from watcher.lookout import Lookout
from watcher.notifying import notifications_for
from watcher.ownership import own_id
from watcher.preview import preview
from watcher.refreshing import Refresh, answer, failed
from watcher.settings import Settings

_logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
_STANDBY_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.8
_LAST_PAUSE_SECONDS = 30.0
_RESIGN_SECONDS = 1.0
_PUBLISHED_AT_ONCE = 1_000


class Watcher:
    """Publishes one prefix to one pool.

    Keeps true: a revision is published only where its bytes were complete, valid and still on disk, and
    withdrawn only where it is proven gone.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        """Watch what `settings` name and publish over `connection`, once `run` is called."""
        self.settings = settings
        self._ledger = Ledger(connection, owner=own_id())
'''.replace("from watcher.inspection import Rules\n","from watcher.inspection import Rules\nfrom watcher.ledger import Ledger\n")
