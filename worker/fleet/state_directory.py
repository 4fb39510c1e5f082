"""Where an embedded stack keeps its state: a directory of its own for each pool and prefix, with one owner.

    STATE/POOL-DIGEST/
        prefix        the prefix whose catalog this is, for operators
        lock          held by the process that runs the stack, however it ends
        redis.url     where its Valkey is, while the stack runs
        api.url       where its API is, while the stack runs
        appendonlydir, valkey.log

Catalogs of different prefixes thus never meet: a server started on another prefix with the same settings
neither offers nor removes what the first one published.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from blake3 import blake3

from loradrop.catalog.settings import SettingsInvalid
from loradrop.worker.settings import WorkerSettings

_DIGEST_BYTES = 6
_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.01


class StateDirectory:
    """The state of one pool and prefix. Invariant: at most one process owns it."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Name the directory; nothing is made yet."""
        self._prefix = os.path.realpath(settings.lora_dir_prefix or "")
        digest = blake3(os.fsencode(self._prefix)).hexdigest(_DIGEST_BYTES)
        self.path = settings.lora_state_dir / f"{settings.pool}-{digest}"

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Own the directory, made if need be, for the length of the block.

        Raises SettingsInvalid where another process owns it, and OSError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock_despite_probes(descriptor):
                raise SettingsInvalid(
                    f"Another server keeps its state in {self.path}. Join its fleet with --redis-url, or "
                    "choose another --lora-state-dir or --pool."
                )
            self._remove_urls()  # a process that was killed leaves them
            (self.path / "prefix").write_bytes(os.fsencode(f"{self._prefix}\n"))
            try:
                yield
            finally:
                self._remove_urls()
        finally:
            os.close(descriptor)

    def is_owned(self) -> bool:
        """Return whether a living process owns the directory."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _lock(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, service: str, url: str) -> None:
        """Write where `service` (redis, api) can be reached; only the owner may."""
        new = self.path / f"{service}.url.new"
        new.write_text(f"{url}\n")
        new.rename(self.path / f"{service}.url")

    def url_of(self, service: str) -> str | None:
        """Return where the owner's `service` can be reached; None where there is no owner, or not yet."""
        try:
            return (self.path / f"{service}.url").read_text().strip() if self.is_owned() else None
        except FileNotFoundError:
            return None

    def _remove_urls(self) -> None:
        for service in ("redis", "api"):
            (self.path / f"{service}.url").unlink(missing_ok=True)


def _lock_despite_probes(descriptor: int) -> bool:
    """Take the lock, which `is_owned` of another process may hold for a moment."""
    for _ in range(_LOCK_TRIES):
        if _lock(descriptor):
            return True
        time.sleep(_LOCK_PAUSE_SECONDS)
    return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
