"""Where a Redis is: a URL, made into a client.

`redis://`, `rediss://` (the certificate is verified) and `unix://` name one server.
`redis+sentinel://HOST:26379,HOST:26379/SERVICE/0` names Sentinels, which name the current primary. User
and password are the servers'; Sentinels have `?sentinel_username=USER&sentinel_password=PASSWORD`.
`redis+cluster://HOST:6379,HOST:6379` names nodes of a Redis Cluster, which name the one that holds the pool.
`rediss+sentinel://` and `rediss+cluster://` speak TLS to all of them.
Options follow a `?`, as redis-py has them: `ssl_ca_certs=FILE`.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from loradrop.catalog.errors import CatalogRefused
from loradrop.catalog.store.cluster import Address, Cluster, ClusterConnection, TLSClusterConnection

_SCHEME = re.compile(r"[A-Za-z0-9+.-]*://")
_BY_SENTINELS = "+sentinel"
_SENTINEL_PORT = 26_379
_BY_CLUSTER = "+cluster"
_PORT = 6_379


def client_of(url: str, *, key: str, **options: Any) -> Any:
    """Return a client of the Redis at `url`, of a cluster's node that holds `key`; raises CatalogRefused.

    It is not connected yet. `options` are redis-py's, and those in the URL win.
    """
    # Any: redis-py types a reply as the union of what every mode could return; callers say what they read.
    scheme = url.partition("://")[0]
    if scheme != "unix":
        options |= {"socket_keepalive": True, "health_check_interval": 15}
    try:
        if scheme.endswith(_BY_SENTINELS):
            client = _by_sentinels(url, options)
        elif scheme.endswith(_BY_CLUSTER):
            client = _by_cluster(url, key, options)
        else:
            client = Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # nothing before looks at the options in a URL
    except (ValueError, TypeError, exceptions.RedisError) as error:
        raise CatalogRefused(
            f"{without_password(url)!r} is not a Redis URL. It looks like redis://HOST:6379/0, "
            "rediss://HOST:6379/0, redis+sentinel://HOST:26379,HOST:26379/SERVICE/0 or "
            "redis+cluster://HOST:6379,HOST:6379."
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
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme else 0
    secret, _, shown = url[start:].rpartition("@")
    if "?" in secret:  # an @ among the options or a ? in the password: no telling
        shown = "..."
    return url[:start] + re.sub(r"([^?&=]+)=[^&]*", _without_secret, shown)


def _without_secret(option: re.Match[str]) -> str:
    return f"{option[1]}=..." if "password" in unquote(option[1]).lower() else option[0]


def _by_sentinels(url: str, options: dict[str, Any]) -> Any:
    addresses, path, given = _parsed(url, _BY_SENTINELS, _SENTINEL_PORT)
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("no service")
    own = {name: given.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    given = options | {"db": int(database or 0)} | given
    tls = {name: value for name, value in given.items() if name.startswith("ssl")}
    timeout_seconds = given["socket_connect_timeout"]
    asking = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # there are others to ask, and redis-py would try one for seconds
    }
    sentinels = Sentinel(addresses, sentinel_kwargs=asking | own | tls)  # type: ignore[no-untyped-call]
    return sentinels.master_for(service, **given)


def _by_cluster(url: str, key: str, options: dict[str, Any]) -> Any:
    seeds, database, given = _parsed(url, _BY_CLUSTER, _PORT)
    if int(database or 0) or given.get("db"):
        raise CatalogRefused(
            f"{without_password(url)!r} names a database, and a Redis Cluster has none but 0. Leave it out."
        )
    connection_class = TLSClusterConnection if given.pop("ssl", False) else ClusterConnection
    cluster = Cluster(seeds, key)
    pool = ConnectionPool(connection_class, cluster=cluster, **(options | given))
    return Redis.from_pool(pool)


def _parsed(url: str, mode: str, port: int) -> tuple[list[Address], str, dict[str, Any]]:
    """Return the addresses, the path and the options of a URL that redis-py would not take."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    given: dict[str, Any] = dict(
        parse_url(f"{parts.scheme.removesuffix(mode)}://{user}{at}server?{parts.query}")
    )
    given.pop("host", None)  # of a scheme that names a file, there is none
    if given.pop("connection_class", None):  # redis-py's for TLS
        given["ssl"] = True
    return [_address(host, port) for host in hosts.split(",")], parts.path.strip("/"), given


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("an address without a host")
    return parts.hostname, parts.port or port
