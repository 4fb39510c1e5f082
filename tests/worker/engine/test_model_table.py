"""vLLM's own table of served models, asking us about the names it does not know."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.worker.engine.early_requests import noted_early
from loradrop.worker.engine.handle import Handle
from loradrop.worker.engine.model_table import ModelTable, request_of
from loradrop.worker.outcomes import Failed, NotServedYet, Rejected, UnknownModel
from tests.catalog.values import revision
from tests.worker.vllm_parts import (
    ErrorResponse,
    FakeClient,
    LoadLoRAAdapterRequest,
    LoRARequest,
    LoRAResolver,
    LoRAResolverRegistry,
    OpenAIServingModels,
    UnloadLoRAAdapterRequest,
    serving_models,
)

HANDLE = Handle.of("sql", revision("a"), Path("/store/a"), attempt=0)


class _Answers:
    """What we answer vLLM with: a value, or an exception to raise."""

    def __init__(self) -> None:
        self.resolve_with: Any = HANDLE
        self.by_hand_with: Any = "Success."
        self.asked: list[tuple[Any, ...]] = []
        self.gone: set[str] = set()
        self.loaded: set[int] = {HANDLE.lora_id}

    async def resolve(self, name: str) -> Handle:
        self.asked.append((name,))
        handle: Handle = _returned(self.resolve_with)
        return handle

    async def load(self, name: str, path: str, *, in_place: bool) -> str:
        self.asked.append((name, path, in_place))
        return str(_returned(self.by_hand_with))

    async def unload(self, name: str) -> str:
        self.asked.append((name,))
        return str(_returned(self.by_hand_with))


def _returned(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture(autouse=True)
def _runtime_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0")


@pytest.fixture
def models() -> OpenAIServingModels:
    return serving_models(FakeClient(), "static_one")


@pytest.fixture
def table(models: OpenAIServingModels) -> ModelTable:
    return ModelTable(models)


@pytest.fixture
def answers(table: ModelTable) -> _Answers:
    answers = _Answers()
    install(table, answers)
    return answers


def install(table: ModelTable, answers: _Answers) -> None:
    table.install(
        resolve=answers.resolve,
        load=answers.load,
        unload=answers.unload,
        is_there=lambda name: name not in answers.gone,
        is_loaded=lambda lora_id: lora_id in answers.loaded,
    )


def body(answer: Any) -> tuple[int, str, str]:
    assert isinstance(answer, ErrorResponse)
    return answer.error.code, answer.error.type, answer.error.message


async def test_static_modules_stay_served_and_taken(table: ModelTable, models: OpenAIServingModels) -> None:
    assert table.static_count == 1
    assert "static_one" in models.lora_requests
    assert table.is_taken("static_one")
    assert table.is_taken("tiny")
    assert table.is_taken("alias")
    assert not table.is_taken("sql")
    assert table.base_model == "tiny"


async def test_a_name_that_points_at_a_handle_is_found_by_vllm_and_shown_as_asked_for(
    table: ModelTable, models: OpenAIServingModels, answers: _Answers
) -> None:
    table.point(HANDLE)
    request = models.lora_requests["sql"]
    assert (request.lora_int_id, request.lora_path) == (HANDLE.lora_id, "/store/a")
    assert models.model_name(request) == "sql"
    assert models.model_name() == "tiny"
    assert models.model_name(LoRARequest("static_one", 1, "/static")) == "static_one"
    table.remove("sql")
    assert "sql" not in models.lora_requests
    assert models.model_name(request) == "sql", "requests still running are answered under their name"


async def test_a_touch_is_remembered_until_the_name_is_removed(
    table: ModelTable, models: OpenAIServingModels
) -> None:
    table.point(HANDLE)
    assert table.last_touched("sql") is None
    assert "sql" in models.lora_requests
    assert table.last_touched("sql") is not None
    table.remove("sql")
    assert table.last_touched("sql") is None
    assert "unknown" not in models.lora_requests
    assert table.last_touched("unknown") is None


async def test_a_request_that_has_found_a_name_finds_it_again_though_it_is_withdrawn(
    table: ModelTable, models: OpenAIServingModels, answers: _Answers
) -> None:
    table.point(HANDLE)
    assert "sql" in models.lora_requests
    assert table.found_ids() == {HANDLE.lora_id}
    table.withdraw("sql")
    assert models.lora_requests["sql"] == request_of(HANDLE)

    async def find() -> bool:
        return "sql" in models.lora_requests

    assert not await asyncio.create_task(find()), "another request"
    table.remove("sql")
    assert "sql" not in models.lora_requests
    assert table.found_ids() == {HANDLE.lora_id}


async def test_what_was_resolved_for_a_request_is_found_by_it(
    table: ModelTable, models: OpenAIServingModels, answers: _Answers
) -> None:
    await models.resolve_lora("sql")
    assert models.lora_requests["sql"] == request_of(HANDLE)


async def test_a_name_whose_files_are_gone_is_not_handed_out(
    table: ModelTable, models: OpenAIServingModels, answers: _Answers
) -> None:
    table.point(HANDLE)
    answers.gone = {"sql", "static_one"}
    assert "sql" not in models.lora_requests
    with pytest.raises(KeyError):
        models.lora_requests["sql"]
    assert "static_one" in models.lora_requests, "its files are not ours"


async def test_a_request_whose_adapter_has_left_the_engine_is_not_started(
    table: ModelTable, models: OpenAIServingModels, answers: _Answers
) -> None:
    client = models.engine_client
    await client.add_request("1", "prompt", None, lora_request=request_of(HANDLE))
    await client.add_request("2", "prompt", None, lora_request=LoRARequest("static_one", 1, "/static"))
    await client.add_request("3", "prompt", None)
    assert set(client.output_processor.request_states) == {"1", "2", "3"}
    answers.loaded = set()
    with noted_early() as early, pytest.raises(NotServedYet) as refused:
        await client.add_request("4", "prompt", None, lora_request=request_of(HANDLE))
    assert early == [refused.value]


async def test_vllms_own_cards_are_the_base_models_and_static_modules(
    table: ModelTable, answers: _Answers
) -> None:
    table.point(HANDLE)
    assert [card["id"] for card in await table.stock_cards()] == ["tiny", "alias", "static_one"]


async def test_installing_lets_vllm_ask(
    table: ModelTable, answers: _Answers, models: OpenAIServingModels
) -> None:
    import os

    assert os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert await models.resolve_lora("sql") == request_of(HANDLE)
    assert answers.asked == [("sql",)]


async def test_an_unknown_name_is_a_404_and_costs_vllm_nothing(
    models: OpenAIServingModels, answers: _Answers
) -> None:
    answers.resolve_with = UnknownModel("absent")
    code, kind, message = body(await models.resolve_lora("absent"))
    assert (code, kind) == (404, "NotFoundError")
    assert "absent" in message
    assert not models.lora_resolver_lock
    assert models.lora_id_counter.value == 0


async def test_a_rejected_adapter_is_a_400_with_its_reason(
    models: OpenAIServingModels, answers: _Answers
) -> None:
    answers.resolve_with = Rejected("weights_not_finite", "It holds NaN.")
    assert body(await models.resolve_lora("sql")) == (
        400,
        "BadRequestError",
        "sql: weights_not_finite: It holds NaN.",
    )


async def test_a_request_that_came_too_early_is_noted_beside_what_vllms_routes_pass_on(
    models: OpenAIServingModels, answers: _Answers
) -> None:
    answers.resolve_with = NotServedYet(Reason("settling", "Not yet."))
    with noted_early() as early:
        assert body(await models.resolve_lora("sql")) == (400, "BadRequestError", "settling: Not yet.")
    assert early == [answers.resolve_with]
    assert body(await models.resolve_lora("sql"))[0] == 400, "where none looks, it is refused all the same"


# vLLM's own load and unload routes.


async def test_a_load_by_hand_is_ours_to_answer(models: OpenAIServingModels, answers: _Answers) -> None:
    request = LoadLoRAAdapterRequest(lora_name="draft", lora_path="/loras/draft")
    assert await models.load_lora_adapter(request) == "Success."
    assert await models.load_lora_adapter(request, base_model_name="tiny") == "Success."
    assert answers.asked == [("draft", "/loras/draft", False)] * 2


@pytest.mark.parametrize(
    ("outcome", "code", "kind"),
    [
        (PermissionError("Outside."), 403, "PermissionDeniedError"),
        (Rejected("a", "Bad."), 400, "BadRequestError"),
        (UnknownModel("Gone."), 404, "NotFoundError"),
    ],
)
async def test_what_goes_wrong_by_hand_is_said_in_vllms_shape(
    models: OpenAIServingModels, answers: _Answers, outcome: Exception, code: int, kind: str
) -> None:
    answers.by_hand_with = outcome
    load = LoadLoRAAdapterRequest(lora_name="draft", lora_path="/loras/draft")
    assert body(await models.load_lora_adapter(load))[:2] == (code, kind)
    unload = UnloadLoRAAdapterRequest(lora_name="draft")
    assert body(await models.unload_lora_adapter(unload))[:2] == (code, kind)


async def test_a_load_by_hand_that_fails_for_now_came_too_early(
    models: OpenAIServingModels, answers: _Answers
) -> None:
    answers.by_hand_with = Failed("disk_full", "Later.")
    with noted_early() as early:
        await models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name="draft", lora_path="/loras/draft"))
    assert [str(error.reason) for error in early] == ["disk_full: Later."]


async def test_vllms_own_checks_of_a_load_come_first(
    models: OpenAIServingModels, answers: _Answers, table: ModelTable
) -> None:
    table.point(HANDLE)
    for name, path in (("", "/loras/a"), ("draft", ""), ("tiny", "/loras/a"), ("sql", "/loras/a")):
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=path)
        assert body(await models.load_lora_adapter(request))[0] == 400
    assert answers.asked == []
    in_place = LoadLoRAAdapterRequest(lora_name="sql", lora_path="/loras/a", load_inplace=True)
    assert await models.load_lora_adapter(in_place) == "Success."


async def test_a_load_for_another_base_model_is_refused(
    models: OpenAIServingModels, answers: _Answers
) -> None:
    request = LoadLoRAAdapterRequest(lora_name="draft", lora_path="/loras/draft")
    assert body(await models.load_lora_adapter(request, base_model_name="llama"))[0] == 400


async def test_a_static_module_is_unloaded_by_vllm_itself(
    models: OpenAIServingModels, answers: _Answers, table: ModelTable
) -> None:
    answer = await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name="static_one"))
    assert "removed successfully" in str(answer)
    assert "static_one" not in models.lora_requests
    assert answers.asked == []
    assert not table.is_taken("static_one")


async def test_a_name_a_static_module_had_is_ours_once_it_was_unloaded(
    models: OpenAIServingModels, answers: _Answers, table: ModelTable
) -> None:
    await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name="static_one"))
    table.point(Handle.of("static_one", revision("a"), Path("/store/a"), attempt=0))
    assert not table.is_taken("static_one")
    assert await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name="static_one")) == "Success."
    assert answers.asked == [("static_one",)]


# Other resolvers.


class _OtherResolver(LoRAResolver):
    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        return LoRARequest(lora_name, 1, f"/other/{lora_name}") if lora_name == "theirs" else None


@pytest.fixture
def _other_resolver() -> Iterator[None]:
    LoRAResolverRegistry.register_resolver("other", _OtherResolver())
    yield
    LoRAResolverRegistry.resolvers.pop("other")


@pytest.mark.usefixtures("_other_resolver")
@pytest.mark.parametrize("value", ["1", "True"])
async def test_other_resolvers_are_asked_where_the_operator_allows_them(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", value)
    models, answers = serving_models(FakeClient()), _Answers()
    install(ModelTable(models), answers)
    answers.resolve_with = UnknownModel("theirs")
    found = await models.resolve_lora("theirs")
    assert isinstance(found, LoRARequest)
    assert found.lora_path == "/other/theirs"
    assert body(await models.resolve_lora("nobodys"))[0] == 404


@pytest.mark.usefixtures("_other_resolver")
@pytest.mark.parametrize("value", ["0", "false", "no", ""])
async def test_other_resolvers_are_not_asked_where_vllm_would_not_ask_them(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", value)
    models, answers = serving_models(FakeClient()), _Answers()
    install(ModelTable(models), answers)
    answers.resolve_with = UnknownModel("theirs")
    assert body(await models.resolve_lora("theirs"))[0] == 404
