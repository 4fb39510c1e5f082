"""Why an adapter's bytes cannot be served now: incomplete, rejected, or changing while they were read."""

from loradrop.catalog.adapter import AdapterState, Reason


class Fault(Exception):
    """Base of the three; `reason` says what is wrong and what to do."""

    state: AdapterState

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.reason = Reason(code, message)


class Incomplete(Fault):
    """Something of an adapter is missing yet."""

    state = AdapterState.INCOMPLETE


class Rejected(Fault):
    """An adapter's bytes cannot work, now or later: only other bytes can."""

    state = AdapterState.REJECTED


class Changed(Fault):
    """The files are changing, so nothing that was read may be used; `reason` says how that shows."""

    state = AdapterState.SETTLING

    def __init__(
        self,
        code: str = "settling",
        message: str = "The files are complete and still fresh. They are published once they rest.",
    ) -> None:
        super().__init__(code, message)
