"""Text that did not come from this program, made safe for a log, a terminal or a table.

Names of files, reasons that quote them, and whatever is read from Redis may hold newlines, escape sequences
and characters that change the direction of writing. Printed as they are, they would forge lines of a log and
send commands to a terminal.
"""


def shown(text: str) -> str:
    """Return `text` on one line, with everything that is not printable, or not UTF-8, as an escape."""
    if text.isascii() and text.isprintable():
        return text  # the very same object: thousands of copies of names would add up
    return "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # a byte of a file's name that is not UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")
