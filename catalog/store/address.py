"""Where a Redis is: a URL, made into a client.

`redis://`, `rediss://` (the certificate is verified) and `unix://` name one server.
`redis+sentinel://HOST:26379,HOST:26379/SERVICE/0` names Sentinels, who know which server it is by now;
`rediss+sentinel://` speaks TLS to them and to the servers. A user and password are the servers': Sentinels
are asked without. Options follow a `?`, as redis-py has them: `ssl_ca_certs=FILE`.

A pool lives on one server, so a Redis Cluster is the URL of the node that holds it; `connection` says which
one that is where it is another.
"""

from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel

from catalog.errors import CatalogRefused

_BY_SENTINELS = "+sentinel"
_SENTINEL_PORT = 26_379


def client_of(url: str, **options: Any) -> Any:
    """Return a client of the Redis at `url`, not connected yet; raises CatalogRefused."""
    # Any: redis-py types a reply as the union of what every mode could return; callers say what they read.
    scheme = url.partition("://")[0]
    if scheme != "unix":
        options |= {"socket_keepalive": True, "health_check_interval": 15}
    try:
        by_sentinels = scheme.endswith(_BY_SENTINELS)
        client = _by_sentinels(url, options) if by_sentinels else Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # nothing before looks at the options in a URL
    except (ValueError, TypeError, exceptions.RedisError) as error:
        raise CatalogRefused(
            f"{without_password(url)!r} is not a Redis URL. It looks like redis://HOST:6379/0, "
            "rediss://HOST:6379/0 or redis+sentinel://HOST:26379,HOST:26379/SERVICE/0."
        ) from error
    return client


async def close(client: Any) -> None:
    """Close a client, and those of the Sentinels it asks."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()
    await client.aclose()


def without_password(url: str) -> str:
    """Return `url` as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _by_sentinels(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("no Sentinel, or no service")
    direct = f"{parts.scheme.removesuffix(_BY_SENTINELS)}://{user}{at}server/{database}?{parts.query}"
    given: dict[str, Any] = dict(parse_url(direct))
    given.pop("host")
    tls = {name: value for name, value in given.items() if name.startswith("ssl_")}
    if given.pop("connection_class", None):  # redis-py's for TLS
        tls["ssl"] = True
    patience = options["socket_connect_timeout"]
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has not typed it
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={"socket_timeout": patience, "socket_connect_timeout": patience, **tls},
    )
    return sentinels.master_for(service, **(given | tls | options))


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel without a host")
    return parts.hostname, parts.port or _SENTINEL_PORT
