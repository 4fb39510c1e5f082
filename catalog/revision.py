"""The revision of an adapter: a digest of the bytes the engine will read, and of nothing else.

blake3 over the weights' format, then the configuration and the weights, each preceded by its length,
so that no two different pairs of files share an input. Times, owners and other files do not count:
touching files changes nothing, and putting old bytes back brings the old revision back.
"""

from blake3 import blake3

from loradrop.catalog.adapter import Revision, WeightsFormat

_DOMAIN = b"loradrop revision 1\n"


class RevisionHasher:
    """Digests one adapter: the configuration at once, then the weights in chunks of any size."""

    def __init__(self, weights_format: WeightsFormat, config: bytes, weights_bytes: int) -> None:
        """Start with the format, the whole configuration and the length of the weights in bytes."""
        self._digest = blake3(_DOMAIN)
        self._digest.update(f"{weights_format}\n{len(config)}\n".encode())
        self._digest.update(config)
        self._digest.update(f"\n{weights_bytes}\n".encode())

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Add the next chunk of the weights."""
        self._digest.update(chunk)

    def revision(self) -> Revision:
        """Return the digest of what was added so far."""
        return Revision(self._digest.hexdigest())


def short(revision: str | None) -> str:
    """Return the first 12 digits, enough to compare by eye, or a dash where there is no revision."""
    return revision[:12] if revision else "-"
