"""The catalog in Redis: publish, list, follow, report. The only importer of redis.

address      a Redis URL, made into a client: one server, TLS, Sentinels or a cluster
cluster      the node of a Redis Cluster that holds a pool
connection   the clients of one Redis, their timeouts, and its errors translated into ours
scripts      the Lua scripts: each change of the catalog is one of them, so it is atomic
publisher    the leading watcher's side: lead, publish, report, resign
reader       the other side: list, follow, and know when to list again
listing      what readers are given
reports      heartbeats of workers and of the watcher
refreshes    manual refreshes, from the request to the result
"""

from loradrop.catalog.store.connection import Connection, Timeouts
from loradrop.catalog.store.listing import Batch, Listing
from loradrop.catalog.store.publisher import Lease, Publisher, Withdrawal
from loradrop.catalog.store.reader import Reader
from loradrop.catalog.store.refreshes import Refreshes
from loradrop.catalog.store.reports import Reports

__all__ = [
    "Batch",
    "Connection",
    "Lease",
    "Listing",
    "Publisher",
    "Reader",
    "Refreshes",
    "Reports",
    "Timeouts",
    "Withdrawal",
]
