"""Text from elsewhere, made safe to show: a log line stays one line, and a terminal obeys nothing."""


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with every character that does not print written as an escape, but for those in `keep`.

    Not printing are control characters, line separators, characters that change the direction of text, and
    surrogates, which stand for bytes that are not UTF-8: `\\x1b`, `\\n`, `\\u202e`, `\\udcff`.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else ascii(character)[1:-1]
        for character in text
    )
