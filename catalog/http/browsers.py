"""What a web page may not do to a server that asks for no key.

Any page can have a visitor's browser send requests to a server the visitor can reach. A key stops that, since
a page does not know it. Without keys there are two ways in, and the browser's own headers tell both:

* a request to this server's address, which the browser sends though it keeps the answer from the page. It
  carries `Origin`, the page's own, or `Sec-Fetch-Site`;
* a name of the page's own site that suddenly resolves to this server (DNS rebinding). Then page and server
  have the same origin, but `Host` is a name this server does not have. An address is no such name.

Programs such as curl send neither header, and are not affected.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from loradrop.catalog.errors import ForeignOrigin, HostNotAllowed

_SAME_SITE = {b"same-origin", b"none"}


class AllowedHosts:
    """The names by which a server may be asked: addresses, localhost, those of this host, and those told."""

    def __init__(self, *told: str) -> None:
        self._names = {name.casefold() for name in (*told, "localhost", socket.gethostname())}

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise HostNotAllowed where `Host` is the name of another server."""
        host = dict(headers).get(b"host", b"").decode("latin-1")
        name = _host_name(host).casefold().removesuffix(".")
        if name in self._names or name.endswith(".localhost") or _is_address(name):
            return
        raise HostNotAllowed(host)


def check_origin(headers: Iterable[tuple[bytes, bytes]], hosts: AllowedHosts) -> None:
    """Raise ForeignOrigin where a page of another site sends the request.

    Raises HostNotAllowed where it is a page of this server, but under a name that is not one of `hosts`.
    """
    known = dict(headers)
    if known.get(b"sec-fetch-site", b"none").lower() not in _SAME_SITE:
        raise ForeignOrigin
    origin = known.get(b"origin")
    if origin is None:
        return
    _, _, authority = origin.lower().partition(b"://")
    if authority != known.get(b"host", b"").lower():
        raise ForeignOrigin
    hosts.check(known.items())


def _host_name(host: str) -> str:
    """Return `HOST` of `HOST:PORT`, or what is given where it cannot be taken apart."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
