"""Random faults while a random history is written: `make chaos SEED=7 SECONDS=60 WORKERS=8`.

    python -m tests.chaos SEED SECONDS WORKERS [FAULT ...]

Prints what was done and ends with 1 where an invariant broke; the record is then kept.
"""

import asyncio
import logging
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.record import Entry, Record
from tests.chaos.run import Plan, run

_SHOWN = 20


def main() -> int:
    """Make the run the command line asks for, and say how it went."""
    seed, seconds, workers = (int(text) for text in sys.argv[1:4])
    directory = Path(tempfile.mkdtemp(prefix=f"loradrop-chaos-{seed}-"))
    logging.basicConfig(filename=directory / "workers.log", format="%(asctime)s %(message)s")
    record = Record(directory / "record.jsonl")
    try:
        faults = asyncio.run(run(Plan(directory, seed, seconds, workers, only=sys.argv[4:]), record))
    except AssertionError as error:
        faults = [str(error)]
    record.close()
    struck = Counter(entry["name"] for entry in record.entries if entry["what"] == "fault")
    print(f"seed {seed}: {workers} workers, {struck.total()} faults: {dict(sorted(struck.items()))}")
    print(f"one every {_seconds_apart(record.entries):.1f} s; the API answered {_answers(record.entries)}")
    counts = Counter(entry["what"] for entry in record.entries)
    print(", ".join(f"{what} {number}" for what, number in sorted(counts.items())))
    for fault in faults[:_SHOWN]:
        print(f"BROKEN {fault}")
    if faults:
        print(f"{len(faults)} in all; the record is {record.path}")
        return 1
    shutil.rmtree(directory)
    print("every invariant held")
    return 0


def _seconds_apart(entries: list[Entry]) -> float:
    at = [entry["at"] for entry in entries if entry["what"] == "fault"]
    return (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 0.0


def _answers(entries: list[Entry]) -> dict[int, int]:
    return dict(sorted(Counter(entry["status"] for entry in entries if entry["what"] == "answer").items()))


if __name__ == "__main__":
    sys.exit(main())
