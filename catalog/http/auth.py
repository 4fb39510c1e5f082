"""What both ports ask of a request before they look at it: a key, a size, and that no web page forged it.

The API and the worker's port of vLLM put the same middleware in front of their routes. It knows no web
framework, only ASGI; how a refusal looks is the port's.

Not here: which keys there are (`api_keys`), and how a page's request is told from others (`browsers`).
"""

from collections.abc import Callable
from typing import Any

from loradrop.catalog.errors import LoradropError, RequestTooLarge
from loradrop.catalog.http.api_keys import KeyRing, Scope
from loradrop.catalog.http.browsers import AllowedHosts, check_origin

GUARDED = "/v1"
REFRESH_PATH = "/v1/refresh_lora_discovery"
MAX_REFRESH_BYTES = 1 << 18
"""Of a refresh's body: the 1,000 names it may hold, at 255 bytes each."""

_HANDSHAKE = "GET"
"""The method of the request that opens a WebSocket."""
_CALLER = "caller"
_IS_ADMITTED = "is_admitted"

_Asgi = Callable[[Any, Any, Any], Any]


class AuthMiddleware:
    """ASGI middleware. Invariant: without a key that will do, no guarded route looks up or reads anything.

    A caller is known by the label of the key, or by the address where no key is asked for. Without keys, one
    that acts must not come from another site's page, nor from a page under a name that is not one of `hosts`;
    `only_hosts` asks that of every request, also of programs.
    """

    def __init__(
        self,
        app: _Asgi,
        *,
        keys: KeyRing,
        needed: Callable[[str, str], Scope | None],
        refusal: Callable[[LoradropError], _Asgi],
        hosts: AllowedHosts,
        only_hosts: bool = False,
    ) -> None:
        """Ask for `needed(method, path)`, None where a route is open; a `refusal` is an error's answer."""
        self._app = app
        self._keys = keys
        self._needed = needed
        self._refusal = refusal
        self._hosts = hosts
        self._only_hosts = only_hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = _path(scope)
        needed = self._needed(scope.get("method", _HANDSHAKE), path)
        try:
            if self._keys.is_open and self._only_hosts:
                self._hosts.check(scope["headers"])
            if needed is not None:
                scope.setdefault("state", {}).update(self._admitted(scope, needed))
            if path == REFRESH_PATH:
                receive = await _whole(receive)
        except LoradropError as error:
            await self._refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admitted(self, scope: Any, needed: Scope) -> dict[str, Any]:
        """Return who asks, and how to find out later whether that is still allowed."""
        if self._keys.is_open:
            if needed is Scope.ADMIN:
                check_origin(scope["headers"], self._hosts)
            host, _ = scope.get("client") or ("", 0)
            return {_CALLER: str(host), _IS_ADMITTED: lambda: True}
        authorization = dict(scope["headers"]).get(b"authorization", b"")

        def is_admitted() -> bool:
            try:
                return bool(self._keys.admit(authorization, needed=needed))
            except LoradropError:
                return False

        return {_CALLER: self._keys.admit(authorization, needed=needed).label, _IS_ADMITTED: is_admitted}


class ChallengeMiddleware:
    """ASGI middleware that adds `WWW-Authenticate` to every 401, whichever guard refused the request."""

    def __init__(self, app: _Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, and complete its answer."""

        async def challenging(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == _UNAUTHORIZED:
                headers = list(message.get("headers", ()))
                if not any(name.lower() == _CHALLENGE[0] for name, _ in headers):
                    message = {**message, "headers": [*headers, _CHALLENGE]}
            await send(message)

        await self._app(scope, receive, challenging if scope["type"] == "http" else send)


_UNAUTHORIZED = 401
_CHALLENGE = (b"www-authenticate", b"Bearer")


def caller_of(scope: Any) -> str:
    """Return who asks, as the audit trail names the caller; empty where no middleware has admitted it."""
    return str(scope.get("state", {}).get(_CALLER, ""))


def is_admitted_of(scope: Any) -> Callable[[], bool]:
    """Return what tells whether the key that admitted a request is still in force."""
    is_admitted: Callable[[], bool] = scope.get("state", {}).get(_IS_ADMITTED, lambda: True)
    return is_admitted


def _path(scope: Any) -> str:
    """Return the path as routes see it: without what a proxy has put in front."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


async def _whole(receive: Any) -> Any:
    """Return a `receive` that begins with the whole body; raises RequestTooLarge, with no more of it read."""
    messages, size, more = [], 0, True
    while more:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > MAX_REFRESH_BYTES:
            raise RequestTooLarge(MAX_REFRESH_BYTES)
        more = message.get("more_body", False)

    async def replayed() -> Any:
        return messages.pop(0) if messages else await receive()

    return replayed
