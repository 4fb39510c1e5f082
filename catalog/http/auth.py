"""What both ports ask of a request before they look at it: a key, and a size.

The API and the worker's port of vLLM put the same gate in front of their routes. It knows no web framework,
only ASGI; how a refusal looks is the port's.

Not here: which keys there are (`access`).
"""

from collections.abc import Callable
from typing import Any

from loradrop.catalog.errors import LoradropError, RequestTooLarge
from loradrop.catalog.http.api_keys import KeyRing, Scope

GUARDED = "/v1"
REFRESH_PATH = "/v1/refresh_lora_discovery"
MAX_REFRESH_BYTES = 1 << 20
"""Of a refresh's body: the 10 000 names it may hold, at 100 bytes each."""

_CALLER = "caller"

_Asgi = Callable[[Any, Any, Any], Any]


class Gate:
    """ASGI middleware. Keeps true: without a key that will do, nothing under `/v1` is looked up or read.

    A caller is known by the label of their key, or by their address where nobody is asked for one.
    """

    def __init__(
        self,
        app: _Asgi,
        *,
        keys: KeyRing,
        needed: Callable[[str, str], Scope],
        refusal: Callable[[LoradropError], _Asgi],
    ) -> None:
        """Ask for `needed(method, path)`; a `refusal` is the answer that stands for an error."""
        self._app = app
        self._keys = keys
        self._needed = needed
        self._refusal = refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not _is_guarded(path := _path(scope)):
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})[_CALLER] = self._caller(scope, path)
            if path == REFRESH_PATH:
                receive = await _whole(receive)
        except LoradropError as error:
            await self._refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Any, path: str) -> str:
        if self._keys.is_open:
            host, _ = scope.get("client") or ("", 0)
            return str(host)
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        return self._keys.admit(authorization, needed=self._needed(scope["method"], path)).label


def caller_of(scope: Any) -> str:
    """Return who asks, as the audit trail names them; empty where no gate has let them in."""
    return str(scope.get("state", {}).get(_CALLER, ""))


def _path(scope: Any) -> str:
    """Return the path as routes see it: without what a proxy has put in front."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _is_guarded(path: str) -> bool:
    return path == GUARDED or path.startswith(f"{GUARDED}/")


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
