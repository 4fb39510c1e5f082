"""Every error of the API as problem details (RFC 9457): what happened, and what to do about it.

An invalid request is a 400, as on vLLM's port, and not FastAPI's usual 422: the same route on both
ports answers the same mistake with the same status.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException

from loradrop.api.schemas import Problem
from loradrop.catalog import errors

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
"""About as long as a standby watcher or a restarted Redis takes to answer again."""

_Answer = TypeVar("_Answer")
_MAX_SHOWN_MISTAKES = 3
_SAME_AGAIN_SECONDS = 60.0


class TooManyStreams(errors.LoradropError):
    """As many clients follow the events as one API allows."""

    code = "too_many_streams"


class Stopping(errors.LoradropError):
    """This process was asked to stop while an answer was still awaited."""

    code = "stopping"


class InvalidCursor(errors.LoradropError):
    """`Last-Event-ID` is not an id this API has sent."""

    code = "invalid_last_event_id"


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: HTTPStatus
    title: str
    may_retry: bool = False


_OUTCOMES: Mapping[type[errors.LoradropError], _Outcome] = {
    errors.CatalogUnavailable: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "The catalog is out of reach", True),
    errors.RecordInvalid: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "A record is being mended", True),
    errors.ResyncNeeded: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "The catalog was replaced", True),
    errors.NoWatcher: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "No watcher is alive", True),
    errors.DiscoveryError: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "The prefix cannot be read", True),
    TooManyStreams: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "Too many event streams", True),
    Stopping: _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, "The API stops", True),
    errors.CatalogDenied: _Outcome(HTTPStatus.BAD_GATEWAY, "Redis refuses this user"),
    errors.CatalogRefused: _Outcome(HTTPStatus.BAD_GATEWAY, "Redis refuses to work with us"),
    errors.KeyNeeded: _Outcome(HTTPStatus.UNAUTHORIZED, "An API key is needed"),
    errors.AdminKeyNeeded: _Outcome(HTTPStatus.FORBIDDEN, "An admin's API key is needed"),
    errors.RequestTooLarge: _Outcome(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    errors.TooManyRefreshes: _Outcome(HTTPStatus.TOO_MANY_REQUESTS, "Too many refreshes", True),
    errors.UnknownAdapter: _Outcome(HTTPStatus.NOT_FOUND, "No such adapter"),
    errors.UnknownRefresh: _Outcome(HTTPStatus.NOT_FOUND, "No such refresh"),
    errors.PrefixNotConfigured: _Outcome(HTTPStatus.BAD_REQUEST, "No prefix is configured"),
    InvalidCursor: _Outcome(HTTPStatus.BAD_REQUEST, "Last-Event-ID is not ours"),
}
_UNFORESEEN = _Outcome(HTTPStatus.INTERNAL_SERVER_ERROR, "Unforeseen error")


def add_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(errors.LoradropError, _foreseen)
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
        detail=detail,
        code=code or status.name.lower(),
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def problem_of(error: errors.LoradropError) -> JSONResponse:
    """Return the problem that stands for `error`."""
    outcome = _OUTCOMES.get(type(error), _UNFORESEEN)
    headers = {}
    if outcome.may_retry:
        seconds = getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS)
        headers["Retry-After"] = str(seconds)
    if outcome.status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(
        outcome.status, title=outcome.title, detail=error.message, code=error.code, headers=headers
    )


def answers(*also: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the problems a route under `/v1` answers with, `also` among them."""
    always = (HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    # `default` also keeps FastAPI from documenting its own 422, which never happens here.
    return {
        **{int(status): {"description": status.phrase, "content": content} for status in (*also, *always)},
        "default": {"description": "Any other problem", "content": content},
    }


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Bound what is asked of Redis inside; raises CatalogUnavailable when the time is up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise errors.CatalogUnavailable(
            f"Redis did not answer within {seconds:g} s. It may be overloaded or frozen; try again later."
        ) from error


async def unless_stopping(stopping: asyncio.Event, awaited: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return what is awaited; raises Stopping as soon as this process was asked to stop."""
    answer = asyncio.ensure_future(awaited)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({answer, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Stopping("This API is stopping. The watcher goes on; ask again how it went.")
        return answer.result()
    finally:
        answer.cancel()
        stop.cancel()


async def _foreseen(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.LoradropError)
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
        title=_UNFORESEEN.title,
        detail="The API failed in a way nobody foresaw; its log says where. Please report it.",
        code="internal_error",
    )
