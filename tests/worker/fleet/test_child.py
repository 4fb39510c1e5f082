"""A child that ends with its parent, however the parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loradrop.worker.fleet import child
from testkit.waiting import wait_until_sync

pytestmark = pytest.mark.faults

CHILD = Path(child.__file__)


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_the_command_takes_the_childs_place() -> None:
    command = [sys.executable, "-S", str(CHILD), str(os.getpid()), "sh", "-c", "echo $$ $PPID"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=10)
    assert output.split() == [str(process.pid), str(os.getpid())]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_when_its_parent_is_killed(how: signal.Signals) -> None:
    script = (
        "import os, subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-S', {str(CHILD)!r}, str(os.getpid()), 'sleep', '300']);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until_sync(
            lambda: psutil.Process(pid).name() == "sleep", timeout=10, description="the command runs"
        )
        parent.send_signal(how)
    wait_until_sync(lambda: not is_running(pid), timeout=10, description="the child has ended")


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    command = [sys.executable, "-S", str(CHILD), "1", "echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert "parent ended" in done.stderr
