"""What every process did and saw in one run, in order."""

import json
import time
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Record:
    """The entries of one run; each is on disk before the next is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._started = time.monotonic()
        self._file = path.open("w", buffering=1)

    @property
    def now(self) -> float:
        """Seconds since the record began."""
        return round(time.monotonic() - self._started, 3)

    def note(self, who: str, what: str, **facts: Any) -> None:
        entry = {"at": self.now, "who": who, "what": what, **facts}
        self.entries.append(entry)
        self._file.write(f"{json.dumps(entry)}\n")

    def close(self) -> None:
        self._file.close()
