"""An hour's worth of events, compressed: does anything grow with them?

    python -m tests.soak [--updates N] [--refreshes N] [--loads N] [--minutes M] [--without-worker]

Prints a table for each scenario and ends with 1 where anything grew by more than 2 %. How noise is kept
out is said in `judge`.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.judge import TOLERATED_SHARE
from tests.soak.run import Outcome, Plan, soak
from tests.soak.table import table


def main() -> int:
    """Make the soak the command line asks for, and say what grew."""
    plan = _plan()
    directory = Path(tempfile.mkdtemp(prefix="loradrop-soak-"))
    is_flat = True
    try:
        for outcome in soak(plan, directory):
            _show(outcome)
            is_flat = is_flat and outcome.is_flat
    except BaseException:
        print(f"The soak broke off; the logs are in {directory}")
        raise
    shutil.rmtree(directory)
    return 0 if is_flat else 1


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    for name in ("updates", "refreshes", "loads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan(), name))
    parser.add_argument("--minutes", type=float, default=Plan().minutes)
    parser.add_argument("--without-worker", dest="with_worker", action="store_false")
    return Plan(**vars(parser.parse_args()))


def _show(outcome: Outcome) -> None:
    rate = outcome.events / outcome.seconds
    print(f"\n{outcome.events:,} {outcome.name} in {outcome.seconds:.0f} s, {rate:.1f}/s with the weighing")
    print(table(outcome.growths))
    grown = [growth for growth in outcome.growths if not growth.is_tolerated]
    verdict = "flat" if not grown else f"{len(grown)} of them grew by more than {TOLERATED_SHARE:.0%}"
    print(verdict, flush=True)


if __name__ == "__main__":
    sys.exit(main())
