"""What serving needs of the engine and of the table of served names, whose own files know vLLM."""

from typing import Protocol

from loradrop.worker.engine.handle import Handle


class EngineLike(Protocol):
    """What this needs of an engine."""

    async def load(self, handle: Handle) -> None:
        """Load; raises Rejected or Failed, with nothing left behind."""

    async def unload(self, handle: Handle) -> None:
        """Free the slot."""

    def ids_in_use(self) -> frozenset[int]:
        """Return the ids that requests are using."""

    def is_idle(self) -> bool:
        """Return whether no request is running."""


class TableLike(Protocol):
    """What this needs of the table of served names."""

    def point(self, handle: Handle) -> None:
        """Let requests for the handle's name use it."""

    def remove(self, name: str) -> None:
        """Let requests for the name use nothing."""

    def withdraw(self, name: str) -> None:
        """Let new requests for the name use nothing; those that have found it find it again."""

    def found_ids(self) -> frozenset[int]:
        """Return the ids that requests under way have found, started or not."""

    def last_touched(self, name: str) -> float | None:
        """Return when (monotonic seconds) a request last asked for `name`, or None."""

    def is_taken(self, name: str) -> bool:
        """Return whether the base model or a static module has the name now."""
