"""What a worker and its vLLM say they do, with exact times: from their log, which must be of our format.

A worker logs that it points a name to a revision in the very step in which it does so: no request is looked
up in between. Its reports are no such account. They are gathered for a moment, so they come late, and what
held for less than that moment is in none of them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.answers.judge import Pointing

_LINE = re.compile(
    r"at=(?P<at>\d+\.\d+) adapter (?P<what>loaded|draining|made room) name=(?P<name>\S+)"
    r"(?: revision=(?P<revision>\w+))?"
)
_ADMITTED = re.compile(
    r"at=(?P<at>\d+\.\d+) Received request cmpl-(?P<id>[^\s:]+?)-0: .* "
    r"lora_request: LoRARequest\(.*?lora_path='(?:[^']*/)?(?P<revision>[0-9a-f]{64})'"
)


def timed_logging(directory: Path) -> str:
    """Return the path of a logging configuration for vLLM (VLLM_LOGGING_CONFIG_PATH) with exact times."""
    handler = {"class": "logging.StreamHandler", "formatter": "timed", "stream": "ext://sys.stdout"}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"timed": {"format": "%(levelname)s [%(filename)s] at=%(created).6f %(message)s"}},
        "handlers": {"vllm": handler},
        "loggers": {
            "vllm": {"handlers": ["vllm"], "level": "INFO", "propagate": False},
            "loradrop.worker.places": {"level": "DEBUG"},  # where a name makes room
        },
    }
    path = directory / "logging.json"
    path.write_text(json.dumps(config))
    return str(path)


def pointings(log: str) -> dict[str, list[Pointing]]:
    """Return what the worker pointed each name to, and when."""
    found: dict[str, list[Pointing]] = {}
    for line in _LINE.finditer(log):
        revision = line["revision"] if line["what"] == "loaded" else None
        pointing = Pointing(float(line["at"]), revision, for_room=line["what"] == "made room")
        found.setdefault(line["name"], []).append(pointing)
    return found


def admissions(log: str) -> dict[str, Pointing]:
    """Return when, and with which revision, each request was taken that used an adapter, by request id."""
    return dict(_admissions(log))


def _admissions(log: str) -> Iterator[tuple[str, Pointing]]:
    for line in _ADMITTED.finditer(log):
        yield line["id"], Pointing(float(line["at"]), line["revision"][:12])
