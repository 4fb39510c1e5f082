"""What was found: one file an error and a place, as small as it can quickly be made."""

import hashlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_OURS = ("/catalog/", "/watcher/", "/worker/", "/tests/fuzz/")
_OWN = "/tests/fuzz/limits.py"
_DIGITS = 12
_SHRINK_SECONDS = 5.0

Signature = tuple[str, str]


def signature_of(error: BaseException) -> Signature:
    """Return the kind of `error` and the innermost function of ours it went through."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if any(part in frame.filename for part in _OURS) and not frame.filename.endswith(_OWN)
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return type(error).__name__, place


class Findings:
    """The findings of one target, kept in a directory. Invariant: one file for each signature."""

    def __init__(self, directory: Path, failure: Callable[[bytes], BaseException | None]) -> None:
        """Keep in `directory` inputs for which `failure` returns an error."""
        self._directory = directory
        self._failure = failure
        self._known: set[Signature] = set()

    def recognise(self, data: bytes) -> None:
        """Take what `data` shows for known, where it still shows anything."""
        error = self._failure(data)
        if error is not None:
            self._known.add(signature_of(error))

    def note(self, data: bytes, error: BaseException) -> Path | None:
        """Keep `data`, made smaller, and return its file; None where its signature is known already."""
        signature = signature_of(error)
        if signature in self._known:
            return None
        self._known.add(signature)
        return keep(self._directory, self._shrunk(data, signature))

    def _shrunk(self, data: bytes, signature: Signature) -> bytes:
        """Return `data` without the parts its error does not need; the larger parts are tried first."""
        deadline = time.monotonic() + _SHRINK_SECONDS
        size = len(data) // 2
        while size:
            start = 0
            while start < len(data):
                if time.monotonic() > deadline:
                    return data
                smaller = data[:start] + data[start + size :]
                if self._fails_alike(smaller, signature):
                    data = smaller
                else:
                    start += size
            size //= 2
        return data

    def _fails_alike(self, data: bytes, signature: Signature) -> bool:
        error = self._failure(data)
        return error is not None and signature_of(error) == signature


def keep(directory: Path, data: bytes) -> Path:
    """Write `data` into `directory` under its digest, and return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / hashlib.sha256(data).hexdigest()[:_DIGITS]
    path.write_bytes(data)
    return path
