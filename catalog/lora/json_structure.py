"""What stands outside the strings of a JSON text: enough to bound what parsing it would build."""

from collections.abc import Iterator

_CHUNK_BYTES = 1 << 16


def outside_strings(text: bytes) -> Iterator[bytes]:
    """Yield, piece by piece, what of `text` is in no string. Little more memory than `text` is needed."""
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # now every quote begins or ends a string
    inside = 0
    for at in range(0, len(text), _CHUNK_BYTES):
        parts = text[at : at + _CHUNK_BYTES].split(b'"')
        yield b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
