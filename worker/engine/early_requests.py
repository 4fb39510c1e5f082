"""Which of the requests being answered came too early, passed around vLLM, whose routes cannot carry it.

What answers a request looks here after vLLM's route has run. It may run in tasks of its own: they copy
the context, and so share the list.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from loradrop.worker.outcomes import NotServedYet

_early: ContextVar[list[NotServedYet]] = ContextVar("loradrop_early")


@contextmanager
def noted_early() -> Iterator[list[NotServedYet]]:
    """Yield the list to which `note_early` adds while the block answers a request."""
    early: list[NotServedYet] = []
    token = _early.set(early)
    try:
        yield early
    finally:
        _early.reset(token)


def note_early(error: NotServedYet) -> None:
    """Record that the request being answered came too early."""
    _early.get([]).append(error)
