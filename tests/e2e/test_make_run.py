"""`make run` as a newcomer meets it: wait for the banner, paste its commands, press Ctrl-C."""

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from testkit.servers import free_port
from testkit.waiting import wait_until_sync

ROOT = Path(__file__).parents[2]
READY_SECONDS = 240
NOT_OURS = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # what a make around this test says to its own children

pytestmark = [pytest.mark.demo, pytest.mark.timeout(600)]


@dataclass(slots=True)
class Demo:
    """A running `make run`, and the commands its banner offers, by title."""

    make: "subprocess.Popen[bytes]"
    prefix: Path
    log: Path
    commands: dict[str, str] = field(default_factory=dict)

    def read_banner(self) -> None:
        """Wait for the banner and keep its commands."""
        wait_until_sync(
            lambda: "Ctrl-C here" in self.log.read_text() or self.make.poll() is not None,
            timeout=READY_SECONDS,
            description="the banner is printed",
        )
        text = self.log.read_text()
        assert "Ctrl-C here" in text, text[-4000:]
        self.commands = dict(re.findall(r"^(\S.*:)\n    (.+)$", text, flags=re.MULTILINE))

    def paste(self, title: str) -> str:
        """Run one of the banner's commands as a shell would and return what it printed."""
        done = subprocess.run(
            self.commands[title], shell=True, cwd=ROOT, check=True, capture_output=True, text=True
        )
        return done.stdout

    def ask(self, title: str) -> str:
        """Paste a chat command and return the answer."""
        reply: dict[str, Any] = json.loads(self.paste(title))
        answer: str = reply["choices"][0]["message"]["content"]
        return answer

    def models(self) -> set[str]:
        """Return what the banner's listing shows."""
        return {model["id"] for model in json.loads(self.paste("It is there:"))["data"]}

    def processes(self) -> list[psutil.Process]:
        """Return make and everything below it."""
        top = psutil.Process(self.make.pid)
        return [top, *top.children(recursive=True)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One `make run` on free ports and a prefix of its own, ready for its commands."""
    directory = tmp_path_factory.mktemp("demo")
    prefix, log = directory / "loras", directory / "log"
    variables = {"PORT": free_port(), "API_PORT": free_port(), "PREFIX": prefix, "STATE": directory / "state"}
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "run", *(f"{name}={value}" for name, value in variables.items())],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in NOT_OURS},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    demo = Demo(make, prefix, log)
    try:
        demo.read_banner()
        yield demo
    finally:
        if make.poll() is None:
            for process in demo.processes():
                process.kill()
        make.wait()


def test_the_sql_adapter_answers_in_sql_and_the_base_model_does_not(demo: Demo) -> None:
    assert demo.ask("Ask the SQL adapter:").startswith("SELECT")
    assert not demo.ask("Ask the base model:").startswith("SELECT")


def test_an_adapter_is_served_by_copying_it_and_gone_by_removing_it(demo: Demo) -> None:
    demo.paste("Drop another adapter:")
    wait_until_sync(
        lambda: "pirate_adapter" in demo.models(), timeout=10, description="the copied adapter is listed"
    )
    assert demo.ask("Ask it:").startswith("Arr")

    demo.paste("Take it away:")
    wait_until_sync(
        lambda: "pirate_adapter" not in demo.models(), timeout=10, description="the removed adapter is gone"
    )
    url, body = chat_request(demo.commands["Ask it:"])
    assert httpx.post(url, json=body).status_code == httpx.codes.NOT_FOUND


def test_the_other_commands_of_the_banner_show_the_adapter(demo: Demo) -> None:
    refreshed = json.loads(demo.paste("Look at the disk now:"))
    assert refreshed["message"].startswith("Successfully refreshed LoRA discovery.")
    assert "sql_adapter" in demo.paste("Every adapter, and what is wrong with it:")
    assert demo.paste("Who serves what:")
    assert demo.commands["The catalog in Redis:"].startswith("redis-cli -u redis://127.0.0.1:")


def test_ctrl_c_leaves_no_process(demo: Demo) -> None:
    processes = demo.processes()
    os.killpg(demo.make.pid, signal.SIGINT)
    wait_until_sync(
        lambda: all(has_ended(process) for process in processes),
        timeout=10,
        description="make and everything it started has ended",
    )
    # vLLM may log that its own engine was interrupted before it was; nothing of ours may break.
    assert not re.search(rf'File "{ROOT}/(?!\.venv)', demo.log.read_text())


def has_ended(process: psutil.Process) -> bool:
    """Return whether nothing of a process is left but, at most, its exit status."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def chat_request(command: str) -> tuple[str, Any]:
    """Return the URL and the body of a banner's curl command."""
    words = shlex.split(command)
    [url] = [word for word in words if word.startswith("http")]
    return url, json.loads(words[words.index("-d") + 1])
