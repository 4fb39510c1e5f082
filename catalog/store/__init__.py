"""The catalog in Redis: publish, list, follow, report. The only importer of redis.

address      where a Redis is: one server, behind TLS, or whoever Sentinels or a cluster say
cluster      where in a Redis Cluster a pool is
connection   one Redis, its errors translated into ours
scripts      the Lua scripts: each change of the catalog is one of them, so it is whole or not at all
publisher    the one watcher that writes: lead, publish, report
reader       everybody else: list, then follow, and know when to list again
reports      what workers say about themselves
refreshes    manual refreshes, from the request to the answer
"""

from loradrop.catalog.store.connection import DEFAULT_REDIS_URL, Connection, Timeouts
from loradrop.catalog.store.publisher import Lease, Publisher, Withdrawal
from loradrop.catalog.store.reader import Batch, Listing, Reader
from loradrop.catalog.store.refreshes import Refreshes
from loradrop.catalog.store.reports import Reports

__all__ = [
    "DEFAULT_REDIS_URL",
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
