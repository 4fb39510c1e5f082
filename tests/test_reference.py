"""What documents say of settings and reason codes is what the code says."""

import pytest

from tests.reason_codes import found_codes, meanings
from tests.reference import FILES, ROOT, current


@pytest.mark.parametrize("name", FILES)
def test_the_generated_parts_of_documents_are_current(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "<!-- generated: " in text
    assert text == current(text), f"{name} is stale. Run `make docs`."


def test_every_reason_code_has_a_meaning_and_advice() -> None:
    missing = sorted(found_codes().codes.keys() - meanings().keys())
    assert not missing, f"Add to docs/reasons.toml, then run `make docs`: {', '.join(missing)}"
    for code, said in meanings().items():
        assert said.keys() == {"meaning", "advice"}, f"[{code}] in docs/reasons.toml"
        assert all(text.endswith(".") for text in said.values()), f"[{code}] in docs/reasons.toml: sentences"


def test_no_reason_code_is_described_that_is_never_given() -> None:
    unused = sorted(meanings().keys() - found_codes().codes.keys())
    assert not unused, f"Remove from docs/reasons.toml, then run `make docs`: {', '.join(unused)}"


def test_every_reason_code_can_be_read_off_its_call() -> None:
    assert not found_codes().unclear, "Write the code as a literal here, or pass on one called `code`."
