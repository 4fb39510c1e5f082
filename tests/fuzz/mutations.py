"""Damaged and doctored files, as hypothesis draws them: bytes set, cut out, put in, doubled and moved."""

from collections.abc import Sequence

from hypothesis import strategies as st

INTERESTING = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff", b"-0", b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6",
    b"PK\6\7", b"}", b"{", b"]", b"[", b'"', b",", b"\\ud800", b"1e400", b"NaN", b"(", b"t", b"R", b"b",
    b"q\0", b"h\0", b"Q", b"\x85", b"\x89", b"K\0", b"J\xff\xff\xff\xff",
]  # fmt: skip
"""Tokens of the formats, which random bytes seldom hit."""


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """Return one of `originals` after one to four changes."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        content = _changed(draw, content)
    return content


def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    at = draw(st.integers(0, len(content)))
    if draw(st.booleans()):  # the ends are where zip files have their structure
        at = max(0, len(content) - draw(st.integers(0, min(300, len(content)))))
    end = min(len(content), at + draw(st.integers(0, 40)))
    match draw(st.sampled_from(["set", "put", "cut", "double", "number"])):
        case "set":
            new = draw(st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=4))
            return content[:at] + new + content[at + len(new) :]
        case "put":
            new = draw(st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=30))
            return content[:at] + new + content[at:]
        case "cut":
            return content[:at] + content[end:]
        case "double":
            to = draw(st.integers(0, len(content)))
            return content[:to] + content[at:end] + content[to:]
        case _:
            width = draw(st.sampled_from([1, 2, 4, 8]))
            number = int.from_bytes(content[at : at + width], "little") + draw(st.integers(-64, 64))
            changed = (number % (1 << 8 * width)).to_bytes(width, "little")
            return content[:at] + changed + content[at + width :]
