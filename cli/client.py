"""Asks the API over HTTP, and turns what goes wrong into one sentence that says what to do.

Over the standard library: importing httpx takes longer than asking.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from loradrop.catalog.settings.declared import API_KEY
from loradrop.cli.bodies import is_like
from loradrop.cli.errors import CommandFailed, Unreachable, UsageError

_Body = TypeVar("_Body")

_PASSWORD = re.compile(r"(?<=//)[^/]*@")
_SECONDS = 15.0
"""More than the API allows itself to wait for Redis."""

_BACKEND_AWAY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_WRONGLY_ASKED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said: the status, and the parsed body."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class ApiClient:
    """One API, at `url`. Every method raises a CommandFailed where there is no good answer."""

    url: str
    key: str = ""

    @classmethod
    def at(cls, url: str) -> Self:
        """Return a client with the first of the keys in LORADROP_API_KEY; raises UsageError."""
        if not _is_http(url):
            shown = _PASSWORD.sub("***@", url)
            raise UsageError(f"{shown!r} is not the URL of an API. It looks like http://127.0.0.1:8001.")
        return cls(url.rstrip("/"), _first_key())

    def get(self, path: str, kind: type[_Body]) -> _Body:
        """Return the body of a good answer."""
        return self.good("GET", self.ask("GET", path), kind)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> Answer:
        """Return the answer, good or not; raises Unreachable where there is none."""
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, parts.path + path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            return Answer(response.status, _parsed(response.read()))
        except (OSError, HTTPException, ValueError) as error:
            raise Unreachable(
                f"No answer from an API at {self.url}: {error or type(error).__name__}.\n"
                "Start one with `loradrop api` (`loradrop serve` brings its own), "
                "or say where it is with --api-url or LORADROP_API_URL."
            ) from error
        finally:
            connection.close()

    def good(self, method: str, answer: Answer, kind: type[_Body]) -> _Body:
        """Return the body of `answer`, which holds all that `kind` says.

        Raises the CommandFailed that the answer stands for where it is not a good one.
        """
        if answer.status < HTTPStatus.BAD_REQUEST:
            if not is_like(answer.body, kind):
                raise Unreachable(
                    f"{self.url} answers, but is not a loradrop API. Say where it is with --api-url."
                )
            body: _Body = answer.body
            return body
        problem = answer.body if isinstance(answer.body, dict) else {}
        code = problem.get("code", "")
        detail = str(problem.get("detail") or "") or f"{self.url} answered {method} with {answer.status}."
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise UsageError(
                f"The API wants a key: set {API_KEY.variable} to one of those it was started with."
            )
        if answer.status in _WRONGLY_ASKED:
            raise UsageError(detail)
        if answer.status in _BACKEND_AWAY and code != "prefix_unreadable":
            raise Unreachable(detail)
        raise CommandFailed(detail)


def _first_key() -> str:
    """Return the first key of LORADROP_API_KEY, without the scope and label a server's may carry."""
    words = os.environ.get(API_KEY.variable, "").partition(",")[0].split()
    return words[0] if words else ""


def _is_http(url: str) -> bool:
    """Return whether `url` can be asked; one with a password in it cannot: keys have a variable."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # brackets that do not match, or a port that is not a number
        return False
    return parts.scheme in ("http", "https") and is_whole and "@" not in parts.netloc


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError) as error:
        raise ValueError("it answers, but not with JSON; is this really a loradrop API?") from error
