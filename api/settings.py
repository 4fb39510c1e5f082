"""The settings of the API."""

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.catalog.store import DEFAULT_REDIS_URL


class Settings(BaseModel):
    """Where to listen, which catalog to show, and to whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Loopback, so that nothing is public unless somebody asks for it."""
    port: int = Field(default=8001, ge=0, le=65535)
    """One above vLLM's, which is 8000."""
    redis_url: str = Field(default=DEFAULT_REDIS_URL, repr=False)
    """Not in the representation, since it may hold a password."""
    pool: str = DEFAULT_POOL
    """Which fleet: watchers, workers and APIs of one pool share a catalog."""
    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    """As `catalog.access` writes them. Without any, and without a file of them, `/v1` is open."""
    api_key_file: Path | None = None
    """More of them, one a line; read again when it changes."""
    redis_seconds: float = Field(default=5.0, gt=0)
    """How long an answer may wait for Redis: below the ten seconds most clients and probes allow."""
    ping_seconds: float = Field(default=15.0, gt=0)
    """Between comments on a quiet event stream: below the 60 s after which proxies cut a connection."""
    max_event_streams: int = Field(default=256, ge=1)
    """Each open event stream holds one Redis connection; Redis allows 10 000 in all."""

    @property
    def is_public_without_key(self) -> bool:
        """Whether other hosts can reach `/v1` and nothing asks them for a key."""
        has_keys = self.api_keys or self.api_key_file is not None
        return not has_keys and not _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
