"""How the engine knows a revision: by an id and a name that nothing else has."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle, public_name
from tests.catalog.values import any_revision, revision

STORE = Path("/store")


def a_handle(name: str = "sql", of: Revision | None = None, *, attempt: int = 0) -> Handle:
    return Handle.of(name, of or revision("a"), STORE, attempt=attempt)


@given(st.text(min_size=1, max_size=20), any_revision, st.integers(0, 50))
def test_an_id_is_positive_and_fits_in_63_bits(name: str, of: Revision, attempt: int) -> None:
    assert 0 < a_handle(name, of, attempt=attempt).lora_id < 2**63


def test_every_process_computes_the_same_id() -> None:
    script = (
        "from pathlib import Path; from loradrop.worker.engine.handle import Handle;"
        f"print(Handle.of('sql', {revision('a')!r}, Path('/elsewhere'), attempt=0).lora_id)"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(there.stdout) == a_handle().lora_id


def test_content_and_attempt_each_make_another_id_and_names_of_the_same_content_share_it() -> None:
    handles = [a_handle(), a_handle(of=revision("b")), a_handle(attempt=1)]
    assert len({handle.lora_id for handle in handles}) == len(handles)
    assert a_handle("sql2").lora_id == a_handle().lora_id
    assert a_handle("sql2").inner_name != a_handle().inner_name


def test_two_ids_never_share_a_name_inside_the_engine() -> None:
    same_start = [Revision("a" * 12 + "b" * 52), Revision("a" * 12 + "c" * 52)]
    handles = [a_handle(), a_handle(attempt=1), *(a_handle(of=start) for start in same_start)]
    assert len({handle.inner_name for handle in handles}) == len(handles)


def test_the_name_inside_the_engine_shows_name_and_revision() -> None:
    assert a_handle().inner_name.startswith("sql@aaaaaaaaaaaa-")


@given(st.text(min_size=1, max_size=20), any_revision, st.integers(0, 50))
def test_the_name_in_requests_is_found_again(name: str, of: Revision, attempt: int) -> None:
    assert public_name(a_handle(name, of, attempt=attempt).inner_name) == name


@pytest.mark.parametrize("name", ["static_one", "team@sql", "sql@v2", ""])
def test_a_name_that_is_not_ours_stays_as_it_is(name: str) -> None:
    assert public_name(name) == name
