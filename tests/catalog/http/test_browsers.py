"""A web page does nothing to a server without keys; programs and the server's own pages are not affected."""

import socket

import pytest

from loradrop.catalog.errors import ForeignOrigin, HostNotAllowed
from loradrop.catalog.http.browsers import AllowedHosts, check_origin


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8001",
        "LOCALHOST.:8001",
        "api.localhost:8001",
        "127.0.0.1:8001",
        "10.1.2.3",
        "[::1]:8001",
        "[fe80::1]",
        "api.internal:8001",
        "loras.example",
        socket.gethostname(),
    ],
)
def test_addresses_localhost_the_hosts_own_name_and_told_names_are_allowed(host: str) -> None:
    AllowedHosts("api.internal", "loras.example").check(headers(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8001",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "xlocalhost",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1x",
        "[::1",
        "[::1].evil.example",
        "[evil.example]",
        "localhost:80@evil.example",
        "",
        "api.internal.evil",
    ],
)
def test_any_other_name_is_that_of_another_server(host: str) -> None:
    with pytest.raises(HostNotAllowed, match="LORADROP_API_ALLOWED_HOST"):
        AllowedHosts("api.internal").check(headers(host=host))


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    here, evil = headers(host="localhost"), headers(host="evil.example")
    for sent in ([], here + evil, evil + here, here + here):
        with pytest.raises(HostNotAllowed):
            AllowedHosts().check(sent)


@pytest.mark.parametrize(
    "sent",
    [
        headers(host="api:8001"),
        headers(host="api:8001", origin="http://api:8001"),
        headers(host="API:8001", origin="https://api:8001", sec_fetch_site="same-origin"),
        headers(host="api:8001", sec_fetch_site="none"),
    ],
)
def test_programs_and_pages_of_this_server_may_act(sent: list[tuple[bytes, bytes]]) -> None:
    check_origin(sent, AllowedHosts("api"))


@pytest.mark.parametrize(
    "sent",
    [
        headers(host="api:8001", origin="http://evil.example"),
        headers(host="api:8001", origin="http://api:8002"),
        headers(host="api:8001", origin="null"),
        headers(host="api:8001", origin=""),
        headers(host="api:8001", origin="http://[::1"),
        headers(host="api:8001", origin="http://evil.example/http://api:8001"),
        headers(host="api:8001", sec_fetch_site="cross-site"),
        headers(host="api:8001", sec_fetch_site="same-site"),
        headers(origin="http://evil.example"),
        headers(host="api:8001", origin="http://evil.example") + headers(origin="http://api:8001"),
        headers(host="api:8001", sec_fetch_site="cross-site") + headers(sec_fetch_site="none"),
    ],
)
def test_a_page_of_another_site_may_not(sent: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ForeignOrigin):
        check_origin(sent, AllowedHosts("api"))


def test_a_page_that_gave_its_own_name_the_address_of_this_server_may_not() -> None:
    rebound = headers(
        host="evil.example:8000", origin="http://evil.example:8000", sec_fetch_site="same-origin"
    )
    with pytest.raises(HostNotAllowed):
        check_origin(rebound, AllowedHosts("api"))
    check_origin(headers(host="evil.example:8000"), AllowedHosts("api"))  # a program's own name for it
