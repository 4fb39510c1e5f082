"""Hunts by machine for inputs that break what reads them: `make fuzz SECONDS=600`.

    python -m tests.fuzz SECONDS [--targets NAME,NAME] [--processes N]

The time is divided among the targets. What is found is kept in tests/fuzz/corpus, where a test replays it on
every run; the inputs that reach new code are kept in .fuzz, so that the next run goes on from there. Ends
with 1 where anything new was found. Best with atheris (`pip install -e '.[fuzz]'`), which knows what an
input has reached; without it seeds are mutated blindly.
"""

import argparse
import sys
from pathlib import Path

from tests.fuzz.driver import Account, Place, fuzz
from tests.fuzz.registry import all_targets, target_called

REPOSITORY = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """Fuzz as the command line asks, and say what was done and found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--targets", default=",".join(all_targets()), help="names with commas between")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    targets = [target_called(name) for name in given.targets.split(",")]
    found = 0
    print(f"{'target':22} {'executions':>11} {'per second':>11} {'edges':>7} {'features':>9} {'findings':>9}")
    place = Place(REPOSITORY / ".fuzz", CORPUS)
    for account in fuzz(targets, given.seconds, place, processes=given.processes):
        _show(account)
        found += len(account.findings)
    return 1 if found else 0


def _show(account: Account) -> None:
    edges, features = ("-" if number is None else number for number in (account.edges, account.features))
    rate = account.executions / account.seconds
    print(
        f"{account.name:22} {account.executions:11,} {rate:11,.0f} {edges:>7} {features:>9}"
        f" {len(account.findings):9}",
        flush=True,
    )
    for path in account.findings:
        print(f"    {path}")


if __name__ == "__main__":
    sys.exit(main())
