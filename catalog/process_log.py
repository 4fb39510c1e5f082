"""How a process logs: one line a record, without anything that a terminal would obey."""

import logging
import sys

from loradrop.catalog.printable import printable

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class PrintableRecords(logging.Filter):
    """Escapes what does not print in the records of a logger and those below it; "" is all loggers.

    Records carry text from elsewhere: names of directories, headers, errors that quote them. A traceback
    keeps its lines.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Make the record safe, and let it pass."""
        if super().filter(record):
            record.msg, record.args = printable(record.getMessage()), None
            if record.exc_info and not record.exc_text:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
            if record.exc_text:
                record.exc_text = printable(record.exc_text, keep="\n")
        return True


def start_log(level: str) -> None:
    """Log to standard error from `level` on."""
    logging.basicConfig(level=level, format=_FORMAT, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(PrintableRecords())
