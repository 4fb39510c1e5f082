"""Who this watcher is, and whether the one that holds the lease can still be alive.

An owner is `host:pid:start`, with the start time and the process namespace in the last part, so that
neither a reused process id nor another container of the same name is taken for the same process. A lease of a
watcher that died on this host need not run out first.
"""

import os
import socket
from pathlib import Path

_START_FIELD = 19
"""Of /proc/PID/stat, counted behind the command name: clock ticks since boot."""


def own_id() -> str:
    """Return the owner this process publishes as."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start(os.getpid())}.{_namespace()}"


def is_dead(owner: str) -> bool:
    """Return whether `owner` was a process of this host that is no longer there; False where unsure."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    start, _, namespace = owner.rpartition(":")[2].partition(".")
    if host != socket.gethostname() or namespace != _namespace() or not rest.isdigit():
        return False
    pid = int(rest)
    if not Path("/proc/self/stat").exists():
        return not _exists(pid)
    return _start(pid) != start


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _start(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    fields = text.rpartition(")")[2].split()
    return "0" if fields[0] in "ZX" else fields[_START_FIELD]


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return "0"
