"""Who holds a lease, and whether that can still be alive."""

import os
import subprocess
import sys

from loradrop.watcher.publish.owner import is_dead, own_id


def owner_of_a_process_that_ended() -> str:
    code = "from loradrop.watcher.publish.owner import own_id; print(own_id())"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_id_names_host_and_process_and_is_the_same_each_time() -> None:
    assert own_id() == own_id()
    assert f":{os.getpid()}:" in own_id()


def test_this_process_is_alive() -> None:
    assert not is_dead(own_id())


def test_a_process_that_ended_is_dead() -> None:
    assert is_dead(owner_of_a_process_that_ended())


def test_a_reused_process_id_is_another_process() -> None:
    host, pid, start = own_id().rsplit(":", 2)
    assert is_dead(f"{host}:{pid}:1.{start.partition('.')[2]}")


def test_a_zombie_is_dead() -> None:
    code = "from loradrop.watcher.publish.owner import own_id; print(own_id(), flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    owner = child.stdout.readline().decode().strip()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent has not noted it
    assert is_dead(owner)
    child.wait()
    child.stdout.close()


def test_an_owner_that_cannot_be_checked_from_here_is_not_called_dead() -> None:
    dead = owner_of_a_process_that_ended()
    assert not is_dead(f"another-host:{dead.split(':', 1)[1]}")
    assert not is_dead(dead + "0")  # another process namespace
    assert not is_dead("unknown")
    assert not is_dead("")
