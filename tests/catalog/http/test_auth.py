"""What is in front of both ports: who may pass, what is read, and who they are."""

from collections.abc import Sequence
from typing import Any

import pytest

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.api_keys import KeyRing, Scope, keys_from
from loradrop.catalog.http.auth import MAX_REFRESH_BYTES, REFRESH_PATH, AuthMiddleware, caller_of
from loradrop.catalog.http.browsers import AllowedHosts


class App:
    """An ASGI application that remembers whom it has let in and what it read."""

    def __init__(self, *entries: str) -> None:
        self.callers: list[str] = []
        self.bodies: list[bytes] = []
        self.refused: list[str] = []
        self.received = 0
        self.guard = AuthMiddleware(
            self._answer,
            keys=KeyRing(keys_from(entries)),
            needed=_needed,
            refusal=self._refusal,
            hosts=AllowedHosts(),
        )

    async def ask(self, path: str, *, key: str = "", chunks: Sequence[bytes] = (b"",), **scope: Any) -> None:
        messages = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]

        async def receive() -> dict[str, Any]:
            self.received += 1
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        asked = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": ("10.0.0.7", 1)}
        await self.guard(asked | scope, receive, None)

    async def _answer(self, scope: Any, receive: Any, _send: Any) -> None:
        self.callers.append(caller_of(scope))
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        assert (await receive())["type"] == "http.disconnect"

    def _refusal(self, error: LoradropError) -> Any:
        async def answer(_scope: Any, _receive: Any, _send: Any) -> None:
            self.refused.append(error.code)

        return answer


def _needed(method: str, path: str) -> Scope | None:
    if not f"{path}/".startswith("/v1/"):
        return None
    return Scope.ADMIN if method == "POST" else Scope.READ


@pytest.mark.parametrize(
    ("path", "root", "is_guarded"),
    [
        ("/v1", "", True),
        ("/v1/x", "", True),
        ("/x/v1/x", "/x", True),
        ("/v1/x", "/x", True),
        ("/v1/x", "/v", True),
        ("/v1/x", "/v1", False),  # the whole port is below /v1: what routes see is /x
        ("/v10", "", False),
        ("/healthz", "", False),
        ("/x/healthz", "/x", False),
    ],
)
async def test_a_path_is_judged_as_routes_see_it(path: str, root: str, is_guarded: bool) -> None:
    app = App("key")
    await app.ask(path, root_path=root)
    assert (app.refused, len(app.callers)) == (["invalid_api_key"] * is_guarded, not is_guarded)


async def test_a_caller_is_the_label_of_their_key_or_their_address() -> None:
    guarded, unguarded = App("key admin deploy"), App()
    await guarded.ask("/v1/x", key="key")
    await unguarded.ask("/v1/x")
    await unguarded.ask("/v1/x", client=None)
    assert (guarded.callers, unguarded.callers) == (["deploy"], ["10.0.0.7", ""])


async def test_a_body_comes_through_whole() -> None:
    app = App()
    await app.ask(REFRESH_PATH, method="POST", chunks=[b"{", b"", b"}"])
    assert app.bodies == [b"{}"]


@pytest.mark.parametrize(
    ("size", "refused"), [(MAX_REFRESH_BYTES, []), (MAX_REFRESH_BYTES + 1, ["request_too_large"])]
)
async def test_a_body_is_refused_from_the_first_byte_that_is_too_many(size: int, refused: list[str]) -> None:
    app = App()
    await app.ask(REFRESH_PATH, method="POST", chunks=[b" " * size, b"never asked for"][: 1 + bool(refused)])
    assert app.refused == refused
    assert app.received == (1 if refused else 2)


async def test_nothing_is_read_of_who_may_not_pass() -> None:
    app = App("key read")
    await app.ask(REFRESH_PATH, method="POST", key="key", chunks=[b"{}"])
    assert (app.refused, app.received) == (["admin_key_needed"], 0)


async def test_a_websocket_is_asked_for_a_key_and_the_start_of_the_server_is_not() -> None:
    app = App("key read")
    await app.ask("/v1/realtime", type="websocket")
    assert (app.refused, app.callers) == (["invalid_api_key"], [])
    await app.ask("/v1/realtime", type="websocket", key="key")
    await app.ask("/v1", type="lifespan")
    assert app.callers == ["key-1", ""]
