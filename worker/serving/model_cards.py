"""The adapters in `GET /v1/models`, in OpenAI's shape, serialized again only when they have changed."""

from collections.abc import Sequence

import msgspec

from loradrop.catalog.adapter import Adapter


class ModelCards:
    """Invariant: the cards are those of the adapters given, and made once for equal ones."""

    def __init__(self, base_model: str) -> None:
        """Make cards for adapters of `base_model`."""
        self._base_model = base_model
        self._adapters: Sequence[Adapter] = ()
        self._cards: tuple[bytes, ...] = ()

    def of(self, adapters: Sequence[Adapter]) -> tuple[bytes, ...]:
        """Return the JSON of the cards of `adapters`, in pieces to be put together with commas."""
        if adapters != self._adapters:
            cards = [self.card(adapter) for adapter in adapters]
            self._cards = (msgspec.json.encode(cards)[1:-1],) if cards else ()
            self._adapters = adapters
        return self._cards

    def card(self, adapter: Adapter) -> dict[str, object]:
        """Return the card of one adapter."""
        return {
            "id": adapter.name,
            "object": "model",
            "created": int(adapter.discovered_at.timestamp()),
            "owned_by": "loradrop",
            "root": adapter.path,
            "parent": self._base_model,
            "max_model_len": None,
            "permission": [],
        }
