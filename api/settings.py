"""The settings of the API: from parsed flags and the environment, as `catalog.settings` declares them."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.settings import Values, declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where to listen, which catalog to show, and to whom."""

    host: str = declared.API_HOST.default_value
    port: int = declared.API_PORT.default_value
    redis_url: str = field(default=declared.REDIS_URL.default_value, repr=False)
    pool: str = declared.POOL_NAME.default_value
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """As `catalog.http.api_keys` reads them. Without any, and without a file of them, `/v1` is open."""
    api_key_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Names under which an API without keys may be asked, beside its own."""
    log_level: str = declared.LOG_LEVEL.default_value
    redis_seconds: float = 5.0
    """How long an answer may wait for Redis: below the ten seconds most clients and probes allow."""
    ping_seconds: float = 15.0
    """Between comments on a quiet event stream: below the 60 s after which proxies cut a connection."""
    max_event_streams: int = 256
    """Each open event stream holds one Redis connection; Redis allows 10 000 in all."""

    @classmethod
    def of(cls, values: Values) -> "Settings":
        """Return what flags and variables say; raises SettingsInvalid."""
        return cls(
            host=values[declared.API_HOST],
            port=values[declared.API_PORT],
            redis_url=values[declared.REDIS_URL],
            pool=values[declared.POOL_NAME],
            api_keys=values.given(declared.API_KEY) or (),
            api_key_file=values.given(declared.API_KEY_FILE),
            allowed_hosts=values.given(declared.API_ALLOWED_HOST) or (),
            log_level=values[declared.LOG_LEVEL],
        )

    @property
    def is_public_without_key(self) -> bool:
        """Whether other hosts can reach `/v1` and none is asked for a key."""
        is_keyless = not self.api_keys and self.api_key_file is None
        return is_keyless and not _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
