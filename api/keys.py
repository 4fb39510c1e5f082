"""API keys: `Authorization: Bearer KEY` in front of everything under `/v1`."""

import hashlib
import hmac
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem_response

GUARDED = "/v1"


class RequireApiKey:
    """ASGI middleware. Keeps true: without a valid key, nothing under `/v1` is looked up or read."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a 401."""
        if scope["type"] != "http" or not _is_guarded(scope["path"]) or self._opens(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        response = problem_response(
            HTTPStatus.UNAUTHORIZED,
            title="An API key is needed",
            detail="Send `Authorization: Bearer KEY` with one of the keys in LORADROP_API_KEY of the API.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await response(scope, receive, send)

    def _opens(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = _digest(key.strip().encode("latin-1"))  # how headers are decoded: these are the sent bytes
        # Every key is compared, each in constant time: how long it takes says nothing about any of them.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _is_guarded(path: str) -> bool:
    return path == GUARDED or path.startswith(f"{GUARDED}/")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
