"""The answer to a request for an adapter that is not served yet, alike on every route of vLLM's.

A route of vLLM's turns what its check of the model says into an error body of its own kind (OpenAI's,
Anthropic's, Cohere's), but passes on 400 and 404 only, and no header. An exception ends as a 500 with a
traceback where the route catches all. So the table of models says 400, and what it means is noted beside it:

    AnswerMiddleware    passes the request on
    a route of vLLM's   asks the table, which notes NotServedYet and returns 400 with the reason
    AnswerMiddleware    makes it 409 or 503 with `Retry-After`, in the body that the route has made
"""

import json
from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse

from loradrop.worker.engine.early_requests import noted_early
from loradrop.worker.outcomes import NotServedYet

_FIRST_ERROR = 400


class AnswerMiddleware:
    """ASGI middleware. Invariant: an answer is changed only where the request came too early."""

    def __init__(self, app: Callable[[Any, Any, Any], Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, and correct its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, is_early = bytearray(), False

        async def correcting(message: Any) -> None:
            nonlocal is_early
            if message["type"] == "http.response.start":
                is_early = bool(early) and message["status"] >= _FIRST_ERROR
            if not is_early:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await _corrected(body, early[-1])(scope, receive, send)

        with noted_early() as early:
            await self._app(scope, receive, correcting)


def _corrected(body: bytearray, early: NotServedYet) -> JSONResponse:
    """Return the error `body` of any of vLLM's shapes, with what `early` says in the fields that it has."""
    content = json.loads(body)
    details = content.get("error", content)
    said = {"message": str(early.reason), "type": early.kind, "code": early.status.value}
    details.update({field: value for field, value in said.items() if field in details})
    return JSONResponse(content, early.status, early.headers)
