"""Every Redis key, in one place. One hash tag for a pool, so one node of a Redis Cluster holds it all."""

from dataclasses import dataclass

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one pool: a set of watchers and workers that share a catalog."""

    pool: str = DEFAULT_POOL

    @property
    def meta(self) -> str:
        """Hash: epoch, seq, fence, schema, count, complete."""
        return self._key("meta")

    @property
    def adapters(self) -> str:
        """Hash: name -> JSON record."""
        return self._key("adapters")

    @property
    def events(self) -> str:
        """Stream: one entry a change."""
        return self._key("events")

    @property
    def refreshes(self) -> str:
        """Stream: refresh requests."""
        return self._key("refreshes")

    @property
    def watcher(self) -> str:
        """Hash with a time to live: the lease and heartbeat of the publishing watcher."""
        return self._key("watcher")

    @property
    def workers(self) -> str:
        """Sorted set: worker id -> last heartbeat, in seconds since 1970."""
        return self._key("workers")

    def refresh(self, refresh_id: str) -> str:
        """Hash with a time to live: one refresh and its result."""
        return self._key(f"refresh:{refresh_id}")

    def worker(self, worker_id: str) -> str:
        """Hash with a time to live: one worker's status."""
        return self._key(f"worker:{worker_id}")

    def worker_adapters(self, worker_id: str) -> str:
        """Hash with a time to live: name -> JSON, the state of each adapter on that worker."""
        return self._key(f"worker:{worker_id}:adapters")

    def _key(self, rest: str) -> str:
        return f"loradrop:{{{self.pool}}}:{rest}"
