"""The store under kill -9, several processes at once, and a disk that is full."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit.tiny_model import write_tiny_adapter
from testkit.waiting import wait_until_sync
from tests.worker.sources import digest_of, is_pinned, published, revisions_in, unfinished_in

pytestmark = pytest.mark.faults


def processes(what: str, place: Path, prefix: Path, *names: str) -> list[str]:
    return [sys.executable, "-m", "tests.worker.store_process", what, str(place), str(prefix), *names]


@contextmanager
def a_holder(place: Path, prefix: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that has the revision of `name` pinned."""
    command = processes("hold", place, prefix, name)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip()
        try:
            yield process
        finally:
            process.kill()


def test_a_process_killed_at_any_step_leaves_no_partial_revision_and_the_next_start_serves(
    place: Path, prefix: Path
) -> None:
    published(prefix)
    done = subprocess.run(processes("die", place, prefix, "sql"), capture_output=True, text=True, check=True)
    deaths = json.loads(done.stdout)
    assert [death["survived"] for death in deaths] == [False] * (len(deaths) - 1) + [True]
    assert len(deaths) > 20, "every step was interrupted"
    assert all(death["whole"] and death["next_start_serves"] for death in deaths), deaths
    assert not any(death["unfinished"] for death in deaths), "the next start cleared what was left"


def test_processes_that_copy_the_same_revisions_at_once_end_with_one_of_each(
    place: Path, prefix: Path
) -> None:
    sources = [published(prefix, f"a{seed}", seed=seed) for seed in (1, 2, 3)]
    done = subprocess.run(
        processes("race", place, prefix, "a1", "a2", "a3"), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [True] * 8, done.stderr
    assert revisions_in(place) == {source.revision for source in sources}
    assert unfinished_in(place) == []


def test_a_pin_of_another_process_ends_with_it_however_it_ends(place: Path, prefix: Path) -> None:
    source = published(prefix)
    with a_holder(place, prefix, "sql") as holder:
        assert is_pinned(place, source.revision)
        holder.kill()
        holder.wait()
    wait_until_sync(lambda: not is_pinned(place, source.revision), timeout=5, description="the kernel let go")


def test_a_full_disk_is_a_failure_that_says_so_and_ends_with_the_space(place: Path, prefix: Path) -> None:
    write_tiny_adapter(prefix / "large", seed=1)
    place.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size=256k tmpfs {place}"
    in_a_namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*in_a_namespace, mount], capture_output=True, check=False).returncode:
        pytest.skip("no private mounts here")
    command = shlex.join(processes("full", place, prefix, "large"))
    done = subprocess.run(
        [*in_a_namespace, f"{mount} && exec {command}"], capture_output=True, text=True, check=True
    )
    *tries, last = json.loads(done.stdout)
    assert tries == [{"outcome": "disk_full", "revisions": 0, "unfinished": 0}] * len(tries)
    assert last == {"outcome": digest_of(prefix / "large"), "revisions": 1, "unfinished": 0}
