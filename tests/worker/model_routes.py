"""Requests for every route of vLLM's that takes a `model`: path and body, without the model."""

from typing import Any


def naming(model: str) -> dict[str, str]:
    """Return the header in which SageMaker's `/invocations` is told the adapter, whatever the body says."""
    return {"X-Amzn-SageMaker-Adapter-Identifier": model}


_MESSAGES = [{"role": "user", "content": "hello"}]

GENERATING: dict[str, dict[str, Any]] = {
    "/detokenize": {"tokens": [1]},
    "/generative_scoring": {"query": "a", "items": ["b"], "label_token_ids": [1, 2]},
    "/invocations": {"prompt": "hello", "max_tokens": 4},
    "/tokenize": {"prompt": "hello"},
    "/v1/chat/completions": {"messages": _MESSAGES, "max_tokens": 4},
    "/v1/chat/completions/batch": {"messages": [_MESSAGES], "max_tokens": 4},
    "/v1/completions": {"prompt": "hello", "max_tokens": 4},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": _MESSAGES},
    "/v1/responses": {"input": "hello", "max_output_tokens": 16},
}
SCALE_OUT: dict[str, dict[str, Any]] = {
    "/inference/v1/generate": {"token_ids": [1, 2], "sampling_params": {"max_tokens": 4}},
    "/v1/chat/completions/render": {"messages": _MESSAGES},
    "/v1/completions/render": {"prompt": "hello"},
}
"""Only with `--enable-scale-out`, in releases that have the flag."""
POOLING: dict[str, dict[str, Any]] = {
    "/classify": {"input": "hello"},
    "/invocations": {"input": "hello"},
    "/pooling": {"input": "hello"},
    "/rerank": {"query": "hello", "documents": ["hello"]},
    "/score": {"queries": "hello", "documents": ["hello"]},
    "/tokenize": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/rerank": {"query": "hello", "documents": ["hello"]},
    "/v1/score": {"queries": "hello", "documents": ["hello"]},
    "/v2/embed": {"texts": ["hello"], "input_type": "search_query"},
    "/v2/rerank": {"query": "hello", "documents": ["hello"]},
}
