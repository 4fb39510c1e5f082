"""Every error of the API as problem details (RFC 9457): what happened, and what to do about it.

An invalid request is a 400, as on vLLM's port, and not FastAPI's usual 422: the same route on both
ports answers the same mistake with the same status.
"""

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from loradrop.api.schemas import Problem
from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.statuses import UNFORESEEN, ErrorStatus, headers_of, status_of
from loradrop.catalog.printable import printable

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_MAX_SHOWN_MISTAKES = 3
_SAME_AGAIN_SECONDS = 60.0


class TooManyStreams(LoradropError):
    """As many clients follow the events as one API allows."""

    code = "too_many_streams"


class InvalidCursor(LoradropError):
    """`Last-Event-ID` is not an id this API has sent."""

    code = "invalid_last_event_id"


_STATUSES: Mapping[type[LoradropError], ErrorStatus] = {
    TooManyStreams: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "Too many event streams", may_retry=True),
    InvalidCursor: ErrorStatus(HTTPStatus.BAD_REQUEST, "Last-Event-ID is not ours"),
}


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(LoradropError, _foreseen)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)


def problem_response(
    status: HTTPStatus, *, title: str, detail: str, code: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return one problem; without a `code` the status says it all."""
    problem = Problem(
        type=f"urn:loradrop:problem:{code}" if code else "about:blank",
        title=title,
        status=status,
        detail=printable(detail, keep="\n"),
        code=code or status.name.lower(),
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def problem_of(error: LoradropError) -> JSONResponse:
    """Return the problem that stands for `error`."""
    answer = status_of(error, _STATUSES)
    headers = headers_of(error, answer)
    return problem_response(
        answer.status, title=answer.title, detail=error.message, code=error.code, headers=headers
    )


def document_problems(operation: dict[str, Any]) -> None:
    """Say in the description of one operation what the bodies of its errors are, and which it always has."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own answer to what is invalid: here it is a 400
    for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE):
        responses.setdefault(str(int(status)), {"description": status.phrase})
    responses["default"] = {"description": "Any other problem"}
    for status_text, response in responses.items():
        if status_text == "default" or int(status_text) >= HTTPStatus.BAD_REQUEST:
            response["content"] = content


async def _foreseen(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LoradropError)
    problem = problem_of(error)
    logger.log(
        _level(request.app.state, problem.status_code, error.code),
        "request refused path=%s code=%s reason=%s",
        request.url.path,
        error.code,
        error.message,
    )
    return problem


def _level(state: State, status: int, code: str) -> int:
    """Return WARNING for a server's problem that has not occurred for a while, else DEBUG."""
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.DEBUG
    now = time.monotonic()
    last_code, last_at = getattr(state, "last_problem", ("", 0.0))
    state.last_problem = (code, now)
    return logging.DEBUG if code == last_code and now - last_at < _SAME_AGAIN_SECONDS else logging.WARNING


async def _invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        f"{'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']}" for mistake in error.errors()
    ]
    more = len(mistakes) - _MAX_SHOWN_MISTAKES
    shown = "; ".join(mistakes[:_MAX_SHOWN_MISTAKES]) + (f"; and {more} more" if more > 0 else "")
    return problem_response(
        HTTPStatus.BAD_REQUEST,
        title="Invalid request",
        detail=f"{shown}. Send JSON with `Content-Type: application/json`; /docs shows what fits.",
        code="invalid_request",
    )


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = error.detail
    if status is HTTPStatus.NOT_FOUND:
        detail = f"There is no {request.url.path} here. /docs lists the routes."
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} does not work on {request.url.path}. /docs lists the routes."
    return problem_response(status, title=status.phrase, detail=detail, headers=error.headers)


async def _unforeseen(_request: Request, _error: Exception) -> JSONResponse:
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        title=UNFORESEEN.title,
        detail="The API failed in an unforeseen way; its log says where. Please report it.",
        code="internal_error",
    )
