"""The proof that a notifier is alive: a file written to a private directory must come back as a hint."""

import asyncio
import tempfile
from pathlib import Path

from loradrop.watcher.notify.lost import NotifierLost


class Proof:
    """A private directory for a notifier to watch beside the prefix, and what is written there."""

    def __init__(self) -> None:
        """Make the directory."""
        self._noticed = asyncio.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="loradrop-watcher-")

    @property
    def directory(self) -> Path:
        """The directory to watch."""
        return Path(self._directory.name)

    def notice(self) -> None:
        """Note that a change in the directory was notified."""
        self._noticed.set()

    async def prove_alive(self, timeout_seconds: float) -> None:
        """Return where a file written now is noticed within the time; raises NotifierLost."""
        self._noticed.clear()
        try:
            self._change()
            async with asyncio.timeout(timeout_seconds):
                await self._noticed.wait()
        except OSError as error:  # TimeoutError is one, too
            raise NotifierLost(
                "notifier_silent",
                f"No notification came back within {timeout_seconds:g} s. The notifier is replaced; rescans"
                " go on meanwhile.",
            ) from error

    def close(self) -> None:
        """Remove the directory."""
        self._directory.cleanup()

    def _change(self) -> None:
        proof = self.directory / "proof"
        proof.write_bytes(b"")
        proof.unlink()
