"""The dictionary in which vLLM looks up which adapter a request's `model` is."""

from collections.abc import Callable

from vllm.lora.request import LoRARequest

from loradrop.worker.engine.finds import Finds

_IsThere = Callable[[str], bool]


class ServedNames(dict[str, LoRARequest]):
    """Invariant: a request that found a name finds the same again, though it is withdrawn meanwhile."""

    def __init__(
        self, served: dict[str, LoRARequest], finds: Finds[LoRARequest], clock: Callable[[], float]
    ) -> None:
        """Begin with what vLLM has `served`; note in `finds` what requests find, and when by `clock`."""
        super().__init__(served)
        self._clock = clock
        self._finds = finds
        self._ours: set[str] = set()
        self._is_there: _IsThere = lambda _name: True
        self.last_touched: dict[str, float] = {}
        """When each was last looked up, in the seconds of the clock."""

    def hide_unless(self, is_there: _IsThere) -> None:
        """Let requests find nothing under the names of ours that `is_there` denies."""
        self._is_there = is_there

    def __contains__(self, name: object) -> bool:
        """Look `name` up for the request of the current task."""
        return self._find(str(name)) is not None

    def __getitem__(self, name: str) -> LoRARequest:
        """Look `name` up for the request of the current task; raises KeyError."""
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return found

    def point(self, name: str, request: LoRARequest) -> None:
        """Let requests find `request`, which is ours, under `name`."""
        self[name] = request
        self._ours.add(name)

    def remove(self, name: str) -> None:
        """Let new requests find nothing under `name`."""
        self.pop(name, None)
        self._ours.discard(name)
        self.last_touched.pop(name, None)

    def _find(self, name: str) -> LoRARequest | None:
        request = self.get(name)
        is_ours = name in self._ours
        if request is None or (is_ours and not self._is_there(name)):
            return self._finds.found(name)
        if is_ours:
            self._finds.note(name, request, request.lora_int_id)
        self.last_touched[name] = self._clock()
        return request
