"""How an error is answered on both ports: the status, a title, and the headers that go with it.

Not here: the body, which has vLLM's shape on vLLM's port and is a problem document on the API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from loradrop.catalog import errors
from loradrop.catalog.http.deadlines import Stopping

RETRY_AFTER_SECONDS = 2
"""About as long as a standby watcher or a restarted Redis takes to answer again."""


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How one kind of error is answered."""

    status: HTTPStatus
    title: str
    may_retry: bool = False


_STATUSES: Mapping[type[errors.LoradropError], ErrorStatus] = {
    errors.CatalogUnavailable: ErrorStatus(
        HTTPStatus.SERVICE_UNAVAILABLE, "The catalog is not available", True
    ),
    errors.RecordInvalid: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "A record is being mended", True),
    errors.ResyncNeeded: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "The catalog was replaced", True),
    errors.NoWatcher: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "No watcher is alive", True),
    errors.DiscoveryError: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "The prefix cannot be read", True),
    Stopping: ErrorStatus(HTTPStatus.SERVICE_UNAVAILABLE, "The server stops", True),
    errors.CatalogDenied: ErrorStatus(HTTPStatus.BAD_GATEWAY, "Redis refuses this user"),
    errors.CatalogRefused: ErrorStatus(HTTPStatus.BAD_GATEWAY, "Redis refuses to work with us"),
    errors.KeyNeeded: ErrorStatus(HTTPStatus.UNAUTHORIZED, "An API key is needed"),
    errors.AdminKeyNeeded: ErrorStatus(HTTPStatus.FORBIDDEN, "An admin's API key is needed"),
    errors.ForeignOrigin: ErrorStatus(HTTPStatus.FORBIDDEN, "Another site's page may not ask for this"),
    errors.HostNotAllowed: ErrorStatus(HTTPStatus.MISDIRECTED_REQUEST, "This server has another name"),
    errors.RequestTooLarge: ErrorStatus(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    errors.TooManyRefreshes: ErrorStatus(HTTPStatus.TOO_MANY_REQUESTS, "Too many refreshes", True),
    errors.UnknownAdapter: ErrorStatus(HTTPStatus.NOT_FOUND, "No such adapter"),
    errors.UnknownRefresh: ErrorStatus(HTTPStatus.NOT_FOUND, "No such refresh"),
    errors.PrefixNotConfigured: ErrorStatus(HTTPStatus.BAD_REQUEST, "No prefix is configured"),
}
UNFORESEEN = ErrorStatus(HTTPStatus.INTERNAL_SERVER_ERROR, "Unforeseen error")


def status_of(
    error: errors.LoradropError, more: Mapping[type[errors.LoradropError], ErrorStatus] | None = None
) -> ErrorStatus:
    """Return how `error` is answered; `more` are kinds that only one port knows."""
    known = {**_STATUSES, **(more or {})}
    return next((known[kind] for kind in type(error).__mro__ if kind in known), UNFORESEEN)


def headers_of(error: errors.LoradropError, answer: ErrorStatus) -> dict[str, str]:
    """Return the headers that go with `error`."""
    headers = {}
    if answer.may_retry:
        headers["Retry-After"] = str(getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS))
    if answer.status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
