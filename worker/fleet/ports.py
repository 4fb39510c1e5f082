"""Loopback ports for the children of an embedded stack, kept for them as long as the stack runs.

Several stacks may start at the same moment, and a child that is started again must find its port free. So a
stack that takes a port holds a lock of that number: an abstract Unix socket, which ends with its process and
is one per network namespace, like the port. Linux only; elsewhere a port is just free when it is chosen.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator

from loradrop.catalog.errors import CatalogUnavailable

_TRIES = 20


@contextlib.contextmanager
def reserved_port(host: str, preferred: int) -> Iterator[int]:
    """Take `preferred`, or another port that is free on `host`, for the length of the block, and yield it.

    Raises CatalogUnavailable where there is none.
    """
    with contextlib.ExitStack() as stack:
        for candidate in (preferred, *[0] * _TRIES):
            try:
                port = _free_port(host, candidate)
                stack.enter_context(_locked(port))
            except OSError:
                continue
            yield port
            return
    raise CatalogUnavailable(f"No free port on {host} for the embedded stack.")


def _free_port(host: str, candidate: int) -> int:
    """Return `candidate`, or any port for 0; raises OSError where a server listens there."""
    family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ended connections do not count
        probe.bind(address)
        port: int = probe.getsockname()[1]
        return port


def _locked(port: int) -> socket.socket:
    """Return a socket that holds the lock of `port`; raises OSError where another process has it."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform == "linux":
            lock.bind(f"\0loradrop-port-{port}")
    except OSError:
        lock.close()
        raise
    return lock
