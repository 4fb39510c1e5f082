"""What ends a session of the watcher, and how loud that is logged."""

import logging

from loradrop.catalog.errors import CatalogDenied, CatalogRefused, LeaseHeld, LoradropError


class SessionFailed(LoradropError):
    """A session ended in a way that was not foreseen; another begins."""

    code = "session_failed"

    def __init__(self, error: Exception) -> None:
        """Say what it was."""
        super().__init__(
            f"The watcher failed ({type(error).__name__}: {str(error)[:200]}) and begins anew. This is a bug"
            " of loradrop: please report it with the log."
        )


def level_of(error: LoradropError) -> int:
    """Return the log level of the end of a session: standing by is normal, a refusal needs the operator."""
    if isinstance(error, LeaseHeld):
        return logging.INFO
    refusals = CatalogDenied | CatalogRefused | SessionFailed
    return logging.ERROR if isinstance(error, refusals) else logging.WARNING
