"""How the engine knows one revision of one adapter. Pure."""

import re
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short

_UNUSED_BITS = 1
"""vLLM keeps ids in signed 64-bit integers."""

_SUFFIX = r"@[0-9a-f]{12}-[0-9a-f]{16}"
_INNER_NAME = re.compile(rf"(?P<name>.+){_SUFFIX}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Handle:
    """One revision of one adapter, in the engine's terms: an id, a name of its own and a local directory.

    The id is a digest of the content, so every API process computes the same one, and names that lead to the
    same content share it. Two ids never share a name inside the engine: two of one name in one batch kill it.
    """

    name: str
    revision: Revision
    lora_id: int
    directory: Path

    @classmethod
    def of(cls, name: str, revision: Revision, directory: Path, *, attempt: int) -> "Handle":
        """Return the handle; `attempt` counts engine loads that failed, whose ids are never used again."""
        digest = blake3(f"{revision}\n{attempt}".encode()).digest()
        lora_id = int.from_bytes(digest[:8]) >> _UNUSED_BITS
        return cls(name, revision, max(lora_id, 1), directory)

    @property
    def inner_name(self) -> str:
        """What the adapter is called inside the engine; `public_names` keeps it there."""
        return f"{self.name}@{short(self.revision)}-{self.lora_id:016x}"


def public_name(inner_name: str) -> str:
    """Return the adapter's name in requests and answers; a name that is not ours as it is."""
    match = _INNER_NAME.fullmatch(inner_name)
    return match["name"] if match else inner_name


def without_inner_names(text: str) -> str:
    """Return `text` with public names where it has names of ours from inside the engine."""
    return re.sub(_SUFFIX, "", text)
