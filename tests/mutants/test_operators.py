"""The mutants of small functions: each has one change, and nothing that only logs is changed."""

import pytest

from tests.mutants.operators import mutants


def bodies(*lines: str) -> set[str]:
    """Return the mutated bodies of a function of these lines."""
    source = "\n".join(["def decide(a, b):", *(f"    {line}" for line in lines)])
    return {"; ".join(line.strip() for line in mutant.source.splitlines()[1:]) for mutant in mutants(source)}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["return a < b"], {"return a <= b", "return None"}),
        (["return a and b"], {"return a", "return b", "return None"}),
        (["return max(a, 2)"], {"return min(a, 2)", "return max(a, 3)", "return max(a, 1)", "return None"}),
        (["return True"], {"return False", "return None"}),
        (["if a:", "    return"], {"if not a:; return"}),
        (["if a is b:", "    return"], {"if a is not b:; return"}),
        (["a.x = b", "b.y = a"], {"b.y = a", "a.x = b"}),
        (["a.x()", "b.y = a"], {"b.y = a", "a.x()", "b.y = a; a.x()"}),
        (["with a.lock:", "    b()"], {"b()", "with a.lock:; pass"}),
        (["while a:", "    continue"], {"while not a:; continue", "while a:; pass"}),
    ],
)
def test_each_change_is_made_alone(lines: list[str], expected: set[str]) -> None:
    assert bodies(*lines) == expected


def test_what_decides_nothing_stays_as_it_is() -> None:
    assert bodies('"""Say it 2 times."""', "_log.info('seconds=%d', 1)", "LOADS.labels('x').inc(1)") == set()
    assert bodies("_logger.warning('seconds=%d', 1)") == set()
    assert list(mutants("LIMIT = 3\n\nclass A:\n    x: int = 4\n")) == []
