"""Which key a request on vLLM's port needs, by its method and path: none, one that may read, or an admin's.

vLLM asks for a key under `/v1` and a few prefixes of its own. What lies outside them infers too
(`/invocations`, `/score`), and changes what is served (`/adapters`). So here every route is guarded that is
not named as open. What is named nowhere, of a newer vLLM or of another plugin, needs an admin's key where it
acts, and a read key where it only tells.
"""

import re

from loradrop.catalog.http.api_keys import Scope

_OPEN = re.compile(
    r"/(health|ping|load|version|metrics|docs(/oauth2-redirect)?|redoc|openapi\.json)/?"
    r"|/static/.*"  # the scripts and styles of vLLM's offline documents
)
"""Probes, metrics and documents: nothing of what clients send or adapters hold."""

_INFERRING = re.compile(
    r"/(classify|detokenize|generative_scoring|invocations|pooling|rerank|score|tokenize)"
    r"|/v1/(embeddings|rerank|score|systemone|audio/(transcriptions|translations))"
    r"|/v1/(chat/)?completions(/(render|derender))?|/v1/chat/completions/batch"
    r"|/v1/messages(/(count_tokens|render))?"
    r"|/v1/responses(/render|/[^/]+/cancel)?"
    r"|/v2/(embed|rerank)"
    r"|/cohere/v2/chat(/render)?"
    r"|/inference/v1/(generate|abort_requests)"
)

_TELLING = frozenset({"GET", "HEAD", "OPTIONS"})


def needed_scope(method: str, path: str) -> Scope | None:
    """Return what a key must be good for, or None where no key is asked for."""
    if _OPEN.fullmatch(path):
        return None
    return Scope.READ if method in _TELLING or _INFERRING.fullmatch(path) else Scope.ADMIN
