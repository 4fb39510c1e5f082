"""One Redis, with its errors translated into ours.

Two clients: one for commands (short timeout, few retries: every command we send may be sent twice),
and one for reads that block. A blocking read keeps its own connection, its own timeout above the
block, and no built-in retry: redis-py's would hide a dead server for longer than anyone should wait.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable
from catalog.keys import DEFAULT_POOL, Keys

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
BLOCK_SECONDS = 5.0
"""How long a blocking read waits for an entry before it checks that it is still in step."""

_COMMAND_TIMEOUT_SECONDS = 5.0
_MARGIN_SECONDS = 5.0
_DENIED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.OutOfMemoryError,
    OSError,
)


class Connection:
    """The clients of one pool's Redis, and that pool's keys. Close it with `aclose` or `async with`."""

    def __init__(self, url: str, *, pool: str = DEFAULT_POOL) -> None:
        """Connect on first use to `url` (`redis://`, `rediss://` or `unix://`).

        Raises CatalogRefused where `url` is not one of those.
        """
        self.keys = Keys(pool)
        self.url = url
        try:
            self.commands = _client(
                url, _COMMAND_TIMEOUT_SECONDS, Retry(ExponentialBackoff(cap=0.5, base=0.05), 2)
            )
            self.blocking = _client(url, BLOCK_SECONDS + _MARGIN_SECONDS, Retry(NoBackoff(), 0))
        except ValueError as error:
            raise CatalogRefused(f"{url!r} is not a Redis URL: {error}") from error

    async def ping(self) -> None:
        """Return when Redis answers; raises CatalogUnavailable or CatalogDenied."""
        async with translated():
            await self.commands.ping()

    async def aclose(self) -> None:
        """Close both clients."""
        await self.commands.aclose()
        await self.blocking.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close both clients."""
        await self.aclose()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn redis-py's errors, raised inside, into CatalogDenied, CatalogUnavailable or CatalogRefused."""
    try:
        yield
    except _DENIED as error:
        raise CatalogDenied(
            f"Redis refuses this user: {error}. Check the user and password in --redis-url, and its ACL."
        ) from error
    except _AWAY as error:
        raise CatalogUnavailable(f"Redis is not available: {error or type(error).__name__}.") from error
    except exceptions.RedisError as error:
        raise CatalogRefused(f"Redis refused a command: {error}") from error


def _client(url: str, timeout_seconds: float, retry: Retry) -> Any:
    # Any: redis-py types a reply as the union of what every mode could return; callers say what they read.
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,  # the reply shapes this package reads are the same on every server version
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": _COMMAND_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "retry": retry,
        "client_name": "loradrop",
    }
    if not url.startswith("unix://"):
        options["health_check_interval"] = 15
    return Redis.from_url(url, **options)
