"""Started from a directory whose modules have the names of our packages: everything starts and serves."""

from pathlib import Path

import httpx
import pytest

from testkit.servers import free_port
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix

pytestmark = pytest.mark.e2e

_FLAGS = [*TINY_FLAGS, *LORA_FLAGS]
_FILES = ("api/__init__.py", "watcher/__init__.py", "worker.py", "cli.py", "catalog.py")
_COMMANDS = {
    "loradrop serve": ("loradrop.cli", "serve"),
    "vllm": ("vllm.entrypoints.openai.api_server", "--model"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The user's own project, none of whose modules may be imported instead of ours."""
    for name in _FILES:
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise RuntimeError('a module of the user was imported')")
    return tmp_path / "project"


@pytest.mark.parametrize("how", _COMMANDS)
def test_beside_modules_of_the_users_own_all_processes_start_and_serve(
    how: str, project: Path, tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix(tmp_path / "loras")
    prefix.rename_in("before", seed=1)
    api_port = free_port()
    ours = ["--lora-dir-prefix", str(prefix.directory), "--api-port", str(api_port)]
    command = [*_COMMANDS[how], str(tiny_model), *_FLAGS, *ours]  # `-m` puts the project on the path
    engine = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    with running(command, directory=tmp_path, name="server", cwd=project, **engine) as server:
        assert server.ask("before").tokens != server.ask("tiny").tokens
        prefix.rename_in("after", seed=2)
        wait_until_sync(lambda: "after" in server.models(), timeout=10, description="after is listed")
        assert server.ask("after").status == httpx.codes.OK
        listed = httpx.get(f"http://127.0.0.1:{api_port}/v1/lora_adapters").json()["data"]
        assert {adapter["id"] for adapter in listed} == {"before", "after"}
        assert "a module of the user" not in server.log
