"""URLs of a Redis: those that cannot be meant, and what of one may be shown."""

import pytest

from loradrop.catalog.errors import CatalogRefused
from loradrop.catalog.store import Connection
from loradrop.catalog.store.address import without_password


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1/0?no_such_option=1",
        "rediss://127.0.0.1/0?ssl_cert_reqs=maybe",
        "redis://127.0.0.1/0?sentinel_password=secret",
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel:///mymaster",
        "redis+sentinel://:secret@127.0.0.1:26379,:1/mymaster",
        "redis+sentinel://127.0.0.1:port/mymaster/0",
        "redis+sentinel://127.0.0.1/mymaster/first",
        "redis+sentinel://127.0.0.1/mymaster?sentinel_password=secret&no_such_option=1",
        "unix:+cluster",
        "redis+cluster://",
        "redis+cluster://127.0.0.1,:1",
        "redis+cluster://127.0.0.1:port",
        "redis+cluster://127.0.0.1/mymaster",
        "redis+cluster://127.0.0.1?sentinel_password=secret",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_once(url: str) -> None:
    with pytest.raises(CatalogRefused, match=r"redis\+sentinel://.*redis\+cluster://") as refused:
        Connection(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis+cluster://:secret@127.0.0.1/1", "redis+cluster://127.0.0.1?db=1"])
def test_a_database_of_a_cluster_is_refused(url: str) -> None:
    with pytest.raises(CatalogRefused, match="none but 0") as refused:
        Connection(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("redis://user:secret@redis:6379/0", "redis://redis:6379/0"),
        ("redis://:sec@ret@redis:6379/0", "redis://redis:6379/0"),
        ("redis:user:secret@redis/0?next=redis://other", "redis/0?next=redis://other"),
        ("redis://:sec/ret@redis:6379/0", "redis://redis:6379/0"),
        ("redis://:sec?ret@redis:6379/0", "redis://..."),
        ("redis://redis/0?password=sec@ret", "redis://..."),
        (
            "redis://redis/0?password=secret&ssl_ca_certs=FILE",
            "redis://redis/0?password=...&ssl_ca_certs=FILE",
        ),
        ("redis://redis/0?Pass%77ord=secret", "redis://redis/0?Pass%77ord=..."),
        (
            "rediss+sentinel://one,two/mymaster/0?sentinel_username=ops&sentinel_password=secret",
            "rediss+sentinel://one,two/mymaster/0?sentinel_username=ops&sentinel_password=...",
        ),
        ("user:secret@redis:6379", "redis:6379"),
    ],
)
def test_no_password_in_a_url_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
