"""Why an adapter's bytes cannot be served now: incomplete, rejected, or changing while they were read."""

from loradrop.catalog.adapter import AdapterState, Reason


class Incomplete(Exception):
    """Something of an adapter is missing yet; `reason` says what."""

    state = AdapterState.INCOMPLETE

    def __init__(self, code: str, message: str) -> None:
        """Remember the reason."""
        super().__init__(message)
        self.reason = Reason(code, message)


class Rejected(Exception):
    """An adapter's bytes cannot work; `reason` says why and what to do."""

    state = AdapterState.REJECTED

    def __init__(self, code: str, message: str) -> None:
        """Remember the reason."""
        super().__init__(message)
        self.reason = Reason(code, message)


class Changed(Exception):
    """The files are changing, so nothing that was read may be used; `reason` says how that shows."""

    state = AdapterState.SETTLING

    def __init__(
        self,
        code: str = "settling",
        message: str = "The files are complete and still fresh. They are published once they rest.",
    ) -> None:
        """Remember the reason."""
        super().__init__(message)
        self.reason = Reason(code, message)
