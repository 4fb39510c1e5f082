"""Text from elsewhere, made safe to show: a log line stays one line, and a terminal obeys nothing.

Names of files, reasons that quote them, and whatever is read from Redis may hold newlines, escape sequences
and characters that change the direction of writing.
"""


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with every character that does not print written as an escape, but for those in `keep`.

    Not printing are control characters, line separators, characters that change the direction of text
    (`\\x1b`, `\\n`, `\\u202e`), and surrogates, which stand for bytes of a file's name that are not UTF-8.
    """
    if text.isprintable():
        return text  # the very same object: thousands of copies of names would add up
    return "".join(sign if sign.isprintable() or sign in keep else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return ascii(sign)[1:-1]
