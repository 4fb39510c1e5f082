"""Residency in the shapes that routers read: one sample for endpoint pickers, one for each adapter."""

from prometheus_client import CollectorRegistry, generate_latest

from loradrop.worker.residency_metrics import ResidencyCollector, Residents, registered


class Engine:
    def __init__(self) -> None:
        self.residents = Residents(("sql", "code", "a,b"), ("math",), places=4, on_device=2)
        self.registry = CollectorRegistry()
        self.unregister = registered(
            ResidencyCollector(lambda: self.residents, clock=lambda: 1_700_000_000.5), self.registry
        )

    def samples(self) -> list[str]:
        lines = generate_latest(self.registry).decode().splitlines()
        return [line for line in lines if not line.startswith("#")]


def test_what_is_resident_counts_as_running_used_or_idle_in_one_sample_whose_value_is_the_time() -> None:
    info, *_ = Engine().samples()
    assert info == (
        'loradrop_lora_requests_info{max_lora="4",running_lora_adapters="sql,code",'
        'waiting_lora_adapters="math"} 1.7000000005e+09'
    )


def test_each_adapter_has_a_sample_that_says_where_it_is() -> None:
    _, *loaded = Engine().samples()
    assert loaded == [
        'loradrop_lora_adapter_loaded{adapter_name="sql",level="gpu",pinned="false"} 1.0',
        'loradrop_lora_adapter_loaded{adapter_name="code",level="gpu",pinned="false"} 1.0',
        'loradrop_lora_adapter_loaded{adapter_name="a,b",level="cpu",pinned="false"} 1.0',
    ]


def test_what_has_left_leaves_no_series_behind() -> None:
    engine = Engine()
    for number in range(100):
        engine.residents = Residents((f"a{number}",), (), places=4, on_device=2)
        assert len(engine.samples()) == 2
    engine.residents = Residents((), (), places=4, on_device=2)
    assert [line.split("{")[0] for line in engine.samples()] == ["loradrop_lora_requests_info"]


def test_after_the_worker_has_ended_there_is_nothing() -> None:
    engine = Engine()
    engine.unregister()
    assert engine.samples() == []
