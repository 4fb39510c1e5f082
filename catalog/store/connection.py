"""One Redis, with its errors translated into ours.

Two clients: one for commands (short timeout, few retries: every command we send may be sent twice),
and one for reads that block. A blocking read keeps its own connection, its own timeout above the
block, and no built-in retry: redis-py's would hide a dead server for minutes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from loradrop.catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable, LoradropError
from loradrop.catalog.redis_keys import DEFAULT_POOL, Keys
from loradrop.catalog.store.address import client_of, close

_MAX_CONNECTIONS = 1_000
"""Of one client. redis-py's default of 100 turns a burst of requests into errors; Redis accepts 10 000."""
_DENIED_IN_SCRIPT = "ACL failure in script"
"""How an error begins that denies a command inside a script: redis-py has no class for it."""
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.OutOfMemoryError,
    OSError,
)
_WRONG_TYPE = "WRONGTYPE"
_UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
_AWAY_WORDS = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "UNBLOCKED", "BUSY Redis", "BUSY Valkey")
"""Answers for which redis-py has no class: Redis cannot do as it is told for now."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long Redis may take to answer.

    `command_seconds` bounds a connection attempt and each command. `block_seconds` is how long a blocking
    read waits for an entry before the reader checks that it is still in step; its answer may come
    `margin_seconds` later than that.
    """

    command_seconds: float = 5.0
    block_seconds: float = 5.0
    margin_seconds: float = 5.0


_DEFAULT_TIMEOUTS = Timeouts()


class Connection:
    """The clients of one pool's Redis, and that pool's keys. Close it with `aclose` or `async with`."""

    def __init__(self, url: str, *, pool: str = DEFAULT_POOL, timeouts: Timeouts = _DEFAULT_TIMEOUTS) -> None:
        """Connect on first use to `url` (see `address`); raises CatalogRefused for an invalid URL."""
        self.keys = Keys(pool)
        self.url = url
        self.timeouts = timeouts
        options = {
            "key": self.keys.meta,  # any would do: they share a hash slot
            "socket_connect_timeout": timeouts.command_seconds,
        }
        self.commands = _client(
            url, options | {"socket_timeout": timeouts.command_seconds, "retry": _retry()}
        )
        answered_seconds = timeouts.block_seconds + timeouts.margin_seconds
        never = Retry(NoBackoff(), 0)
        self.blocking = _client(url, options | {"socket_timeout": answered_seconds, "retry": never})

    async def ping(self) -> None:
        """Return when Redis answers; raises CatalogUnavailable or CatalogDenied."""
        async with translated():
            await self.commands.ping()

    async def aclose(self) -> None:
        """Close both clients."""
        await close(self.commands)
        await close(self.blocking)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn redis-py's errors, raised inside, into CatalogDenied, CatalogUnavailable or CatalogRefused.

    A cancellation inside is never lost: redis-py sends with `asyncio.wait_for`, which on Python 3.11
    swallows one that arrives at the moment the sending is done, and a loop that reads would go on for ever.
    """
    cancellations = _cancellations()
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        if _cancellations() > cancellations:
            raise asyncio.CancelledError from error
        raise _ours(error) from error
    if _cancellations() > cancellations:
        raise asyncio.CancelledError


def _ours(error: Exception) -> LoradropError:
    return _denied(error) or _away(error) or _refused(error)


def _denied(error: Exception) -> CatalogDenied | None:
    if isinstance(error, exceptions.NoPermissionError) or _DENIED_IN_SCRIPT in str(error):
        return CatalogDenied(
            f"Redis denies this user a permission: {str(error).rstrip('.')}. docker/users.acl holds those a "
            "watcher, a worker and an API need; ACL LOG on that Redis names the command or the key."
        )
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return CatalogDenied(f"Redis refuses this user: {error}. Check the user and password in --redis-url.")
    return None


def _away(error: Exception) -> CatalogUnavailable | None:
    if _UNVERIFIED in str(error):
        return CatalogUnavailable(
            f"The certificate of Redis is not trusted: {error}. Name the certificate authority in "
            "--redis-url: rediss://HOST:6379/0?ssl_ca_certs=FILE."
        )
    if isinstance(error, _AWAY):
        why = str(error).rstrip(".") or type(error).__name__
        return CatalogUnavailable(
            f"Redis is not available: {why}. Nothing is lost; check that it runs, and --redis-url."
        )
    if _WRONG_TYPE in str(error):
        return CatalogUnavailable(
            f"The catalog in Redis is damaged: {error}. The watcher replaces it in seconds."
        )
    if any(word in str(error) for word in _AWAY_WORDS):  # a pipeline puts the command in front
        return CatalogUnavailable(f"Redis cannot do that for now: {error}")
    return None


def _refused(error: Exception) -> CatalogRefused:
    if isinstance(error, exceptions.MovedError):
        return CatalogRefused(
            f"This Redis is a node of a cluster, and another node holds this pool: {error}. "
            "Give the URL of the cluster: redis+cluster://HOST:6379,HOST:6379."
        )
    return CatalogRefused(f"Redis refused a command: {error}")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _retry() -> Retry:
    # A lost connection is worth another try at once. A server that does not answer in time is not:
    # the caller has its own back-off, and a client waits for its answer.
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), 2, (exceptions.ConnectionError,))


def _client(url: str, options: dict[str, Any]) -> Any:
    return client_of(
        url,
        decode_responses=True,
        encoding_errors="replace",  # one record that is not text must not hide all the others
        protocol=2,  # the reply shapes this package reads are the same on every server version
        client_name="loradrop",
        max_connections=_MAX_CONNECTIONS,
        **options,
    )
