"""What we rely on in vLLM: the installed one has it, and one that differs is found out by reading it."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from loradrop.worker.engine.vllm_contract import CONTRACT, ReliedOn, differences

MODULE = """
from vllm.elsewhere import Moved as Known

class Client:
    declared: int = 3
    def __init__(self):
        self.kept = 1
    @property
    def shown(self): ...
    async def load(self, request, *, slowly=False): ...

def check(self):
    return envs.SWITCH and self.table.resolve(1)
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A vLLM of one module, and another it imports from."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "client.py").write_text(MODULE)
    (tmp_path / "vllm" / "elsewhere.py").write_text("class Moved:\n    field: str\n")
    return tmp_path


def lacking(packages: Path, *places: str, **what: tuple[str, ...]) -> list[str]:
    return differences(packages, [ReliedOn(places, **what)])


def test_the_installed_vllm_has_all_we_rely_on() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    assert differences(Path(spec.origin).parents[1]) == []


def test_everything_of_a_vllm_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = differences(tmp_path)
    assert len(found) == len(CONTRACT)
    assert "vllm.v1.engine.async_llm.AsyncLLM" in found


def test_fields_are_found_where_they_are_declared_set_or_computed(packages: Path) -> None:
    fields = ("declared", "kept", "shown", "gone")
    assert lacking(packages, "vllm.client:Client", fields=fields) == ["vllm.client.Client.gone"]


def test_a_method_must_take_what_we_name(packages: Path) -> None:
    calls = ("load(request, slowly)", "load(request, fast)", "unload()")
    assert lacking(packages, "vllm.client:Client", calls=calls) == [
        "vllm.client.Client.load(request, fast)",
        "vllm.client.Client.unload()",
    ]


def test_a_function_must_take_and_use_what_we_rely_on(packages: Path) -> None:
    found = lacking(
        packages, "vllm.client:check", takes=("self", "other"), uses=("SWITCH", "resolve", "answer")
    )
    assert found == ["vllm.client.check(other)", "vllm.client.check using answer"]


def test_what_a_module_imports_counts_as_its_own(packages: Path) -> None:
    assert lacking(packages, "vllm.client:Known", fields=("field",)) == []


def test_the_first_place_that_exists_counts(packages: Path) -> None:
    assert lacking(packages, "vllm.gone:Client", "vllm.client:Client", fields=("kept",)) == []
    assert lacking(packages, "vllm.gone:Client", "vllm.client:Gone") == ["vllm.gone.Client"]
