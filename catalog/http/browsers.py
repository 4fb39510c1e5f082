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
import re
import socket
from collections.abc import Collection

from loradrop.catalog.errors import ForeignOrigin, HostNotAllowed

_Headers = Collection[tuple[bytes, bytes]]

_SAME_SITE = {b"same-origin", b"none"}
_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:@/\[\]]+))(?::[0-9]*)?")


class AllowedHosts:
    """The names by which a server may be asked: addresses, localhost, those of this host, and those told."""

    def __init__(self, *told: str) -> None:
        self._names = {name.casefold() for name in (*told, "localhost", socket.gethostname())}

    def check(self, headers: _Headers) -> None:
        """Raise HostNotAllowed where `Host` is the name of another server, or there is not just one."""
        hosts = _values(headers, b"host")
        if len(hosts) != 1 or not self._know(_host_name(hosts[0])):
            raise HostNotAllowed(b", ".join(hosts).decode("latin-1"))

    def _know(self, name: str) -> bool:
        return name in self._names or name.endswith(".localhost") or _is_address(name)


def check_origin(headers: _Headers, hosts: AllowedHosts) -> None:
    """Raise ForeignOrigin where a page of another site sends the request.

    Raises HostNotAllowed where it is a page of this server, but under a name that is not one of `hosts`.
    """
    if any(site.lower() not in _SAME_SITE for site in _values(headers, b"sec-fetch-site")):
        raise ForeignOrigin
    origins = _values(headers, b"origin")
    if not origins:
        return
    host = b", ".join(_values(headers, b"host")).lower()
    if any(origin.lower().partition(b"://")[2] != host for origin in origins):
        raise ForeignOrigin
    hosts.check(headers)


def _values(headers: _Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _host_name(host: bytes) -> str:
    """Return `HOST` of `HOST:PORT`; nothing where it is not of that shape."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return (found[1] or found[2]).casefold().removesuffix(".") if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
