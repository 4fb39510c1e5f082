"""A filesystem that never answers, as that of a dead NFS server: a FUSE mount without a server.

Needs root on Linux.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DETACH = 2
_LONGEST_SECONDS = 60.0


@contextmanager
def hung_filesystem(mount_point: Path) -> Iterator[None]:
    """Mount it on the directory for the length of the block; what waits for it then gets an error.

    After a minute it fails by itself, so that a test which waits for it fails instead of hanging. Raises
    OSError where this process may not mount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    guard = threading.Timer(_LONGEST_SECONDS, lambda: _abort(device))
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"hung", os.fsencode(mount_point), b"fuse", 0, options.encode()):
        os.close(device)
        raise OSError(ctypes.get_errno(), "cannot be mounted", mount_point)
    guard.start()
    try:
        yield
    finally:
        guard.cancel()
        _abort(device)
        libc.umount2(os.fsencode(mount_point), _DETACH)


def _abort(device: int) -> None:
    """Let all that wait for the filesystem fail: its device is closed."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, device, inheritable=False)  # the number stays taken: it is closed once
    os.close(null)
