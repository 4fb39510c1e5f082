"""How making an adapter available can end, and what a request for one can be told.

    Rejected        these bytes will not work here, now or later: wait for other bytes (400)
        NameTaken   nor would any others, as long as this server has the name already
    Failed          it did not work this time, and may the next: try again later
    NotServedYet    a request came too early: 409 (503 where the worker is), and when to ask again
    UnknownModel    there is no adapter of this name (404)

Done is a return value. The reconciler turns the others into state, log and answer.
"""

from http import HTTPStatus

from loradrop.catalog.adapter import Reason
from loradrop.catalog.lora.faults import Rejected

__all__ = ["Failed", "NameTaken", "NotServedYet", "Rejected", "UnknownModel"]


class NameTaken(Rejected):
    """The base model or a static module has the name."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("name_taken", "The base model or a --lora-modules adapter has this name; rename it.")


class Failed(Exception):
    """It did not work this time, and may the next: try again later."""

    def __init__(self, code: str, message: str) -> None:
        """Remember why."""
        super().__init__(f"{code}: {message}")
        self.reason = Reason(code, message)


class UnknownModel(Exception):
    """There is no adapter of this name."""


class NotServedYet(Exception):
    """A request for an adapter that will be served later: 409, so that no router takes the worker for sick.

    Where it concerns the whole worker, that one is meant to: 503.
    """

    def __init__(self, reason: Reason, *, retry_after_seconds: int = 1, of_worker: bool = False) -> None:
        """Say why, and after how many seconds it is worth trying again."""
        super().__init__(str(reason))
        self.reason = reason
        self.headers = {"Retry-After": str(retry_after_seconds)}
        self.status = HTTPStatus.SERVICE_UNAVAILABLE if of_worker else HTTPStatus.CONFLICT
        self.kind = "ServiceUnavailableError" if of_worker else "ConflictError"
