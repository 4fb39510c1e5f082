"""Which of the engine's adapters other API processes of the server have too.

All API processes of a server share its engine, and give the same content the same id. One that unloads an
id which another serves would leave that one's next request to read the adapter from disk in the middle of a
step; one that loads what another's failed load left registered would serve the wrong weights. So each id is
a byte of a file, locked by the processes that have it:

    take       no other process has it: exclusive, others wait; else shared
    share      loaded: others may have it too
    give_up    whether no other process has it: only then is it unloaded

The locks of a process that is killed end with it.
"""

import asyncio
import fcntl
import os
from pathlib import Path

_POLL_SECONDS = 0.01
_OFFSET_BITS = 62
"""A lock's last byte must lie below 2^63."""


class SharedIds:
    """Invariant: an id that several processes have is unloaded by the last of them."""

    def __init__(self, path: Path | None) -> None:
        """Lock bytes of `path`, made if need be, until this process ends; None: there is no other process.

        Raises OSError.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) if path is not None else None

    @classmethod
    def of_server(cls, process_count: int) -> "SharedIds":
        """Return those of this server, which has so many API processes. vLLM gives them a directory."""
        if process_count == 1:
            return cls(None)
        return cls(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"loradrop-{os.getppid()}.ids"))

    async def take(self, lora_id: int) -> None:
        """Wait until no other process loads or unloads it, and have it."""
        while not (  # noqa: ASYNC110 - another process holds it
            self._lock(lora_id, fcntl.LOCK_EX) or self._lock(lora_id, fcntl.LOCK_SH)
        ):
            await asyncio.sleep(_POLL_SECONDS)

    def share(self, lora_id: int) -> None:
        """Let other processes have it too."""
        self._lock(lora_id, fcntl.LOCK_SH)

    def give_up(self, lora_id: int) -> bool:
        """Return whether no other process has it: it is held until `release`, so that none takes it."""
        return self._lock(lora_id, fcntl.LOCK_EX)

    def release(self, lora_id: int) -> None:
        """Have it no more."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(lora_id))

    def _lock(self, lora_id: int, kind: int) -> bool:
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, _offset(lora_id))
        except BlockingIOError:
            return False
        return True


def _offset(lora_id: int) -> int:
    return lora_id % (1 << _OFFSET_BITS)
