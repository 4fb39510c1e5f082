"""Which rank and factor a module's weights have, by patterns whose writer is unknown."""

import pytest

from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.worker.admission.scaling import scalings
from tests.worker.models import Q0, config


def ranks(adapter: LoraConfig, *modules: str) -> list[int]:
    return [scaling.rank for scaling in scalings(adapter, modules).values()]


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "self_attn.q_proj",
        Q0,
        r"^model\.layers\.[0-9]+\.self_attn\.(q|k)_proj",
        r".*\.layers\.\d+\..*_proj",
        r"layers.(?:0|1|2).self_attn.q_proj",
    ],
)
def test_patterns_mean_modules_as_in_peft(pattern: str) -> None:
    assert ranks(config(rank_pattern={pattern: 8}), Q0, f"{Q0}_other") == [8, 4]


def test_the_first_entry_that_means_a_module_wins() -> None:
    assert ranks(config(rank_pattern={"q_proj": 8, r".*q_proj": 2}), Q0) == [8]
    assert ranks(config(rank_pattern={r".*q_proj": 2, "q_proj": 8}), Q0) == [2]
    assert ranks(config(rank_pattern={"q_proj": 8, "self_attn.q_proj": 2}), Q0) == [8]
    assert ranks(config(rank_pattern={"self_attn.q_proj": 2, "q_proj": 8}), Q0) == [2]


def test_a_factor_follows_rank_and_alpha_of_its_module() -> None:
    adapter = config(rank_pattern={"q_proj": 16}, alpha_pattern={"q_proj": 4.0})
    assert scalings(adapter, [Q0])[Q0].factor == 0.25
    adapter = config(rank_pattern={"q_proj": 16}, alpha_pattern={"q_proj": 4.0}, rslora=True)
    assert scalings(adapter, [Q0])[Q0].factor == 1.0


@pytest.mark.parametrize("pattern", ["(", "[", "*", "(?P<x>a)(?P<x"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(Rejected, match=r"alpha_pattern_invalid.*not a regular expression"):
        scalings(config(alpha_pattern={pattern: 8.0}), [Q0])


def test_a_pattern_that_takes_too_long_is_refused_before_the_engine_runs_it() -> None:
    pattern = r"(.*)(.*)(.*)(.*)(.*)\3\4\5\6\7z"
    with pytest.raises(Rejected, match=r"rank_pattern_invalid.*too long"):
        scalings(config(rank_pattern={pattern: 8}), ["z" + "ab" * 50])
