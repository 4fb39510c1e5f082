"""`serve`, `watch` and `api` start the processes, with every argument as it was typed."""

import subprocess
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from loradrop.cli import processes
from loradrop.cli.__main__ import app


class Recorder(ModuleType):
    """A process's module that only remembers what it was started with."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.arguments: list[str] = []

    def main(self, arguments: list[str]) -> int:
        self.arguments = arguments
        return 7

    def watch(self, prefix: str, interval: float = 30.0) -> None:
        """Watch a prefix."""
        self.arguments = [prefix, str(interval)]


def find_nothing(_name: str) -> None:
    return None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--model", "m", "--lora-dir-prefix=p", "-tp", "2", "--", "x"],
        ["some/model", "--lora-modules", "a=b", '{"name": "c", "path": "d"}'],
        [],
    ],
)
def test_serve_hands_every_argument_on_and_ends_as_the_worker_does(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    worker = Recorder()
    monkeypatch.setitem(sys.modules, "loradrop.worker.__main__", worker)
    monkeypatch.setattr(processes, "find_spec", lambda name: name)
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert (worker.arguments, result.exit_code) == (arguments, 7)


def test_serve_without_vllm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", find_nothing)
    result = CliRunner().invoke(app, ["serve", "--model", "m"])
    assert result.exit_code == 2
    assert "pip install loradrop[vllm]" in result.stderr


def test_watch_takes_the_flags_of_the_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Recorder()
    monkeypatch.setitem(sys.modules, "loradrop.watcher.__main__", watcher)
    result = CliRunner().invoke(app, ["watch", "loras", "--interval", "5"])
    assert (watcher.arguments, result.exit_code) == (["loras", "5.0"], 0)
    result = CliRunner().invoke(app, ["watch", "--help"])
    assert "loradrop watch" in result.output
    assert "--interval" in result.output


def test_api_takes_the_flags_of_the_api() -> None:
    result = CliRunner().invoke(app, ["api", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "LORADROP_API_PORT" in result.output


def test_the_command_lists_its_commands_and_its_version() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    for command in ("serve", "watch", "api", "ls", "status", "refresh", "wait", "validate"):
        assert f" {command} " in result.output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("loradrop")
    assert CliRunner().invoke(app, ["nope"]).exit_code == 2


def test_asking_the_api_imports_nothing_that_only_processes_need() -> None:
    heavy = ("vllm", "torch", "fastapi", "redis", "watchdog", "asyncinotify", "httpx", "uvicorn")
    code = (
        "import sys; from typer.testing import CliRunner; from loradrop.cli.__main__ import app; "
        "CliRunner().invoke(app, ['ls', '--api-url', 'http://127.0.0.1:1']); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
