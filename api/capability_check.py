"""Refuses parameters that the model's engine cannot follow, by name. What gets past, the worker refuses."""

from __future__ import annotations

from collections.abc import Callable

from promptq.contract import capabilities
from promptq.contract.request import GenerateRequest
from promptq.queue.published import Published


class CapabilityCheck:
    """Knows what the engine can do once a worker has told it. Until then all is let through.

    Args:
        read: gives the capabilities that are published, or None.
        model: whose engine it is.
    """

    def __init__(self, read: Callable[[], frozenset[str] | None], model: str) -> None:
        self._able = Published[frozenset[str]](lambda _: read())
        self._model = model

    def check(self, request: GenerateRequest) -> None:
        """Let the request through if the engine can do what it asks for.

        Raises:
            InvalidRequest: it cannot.
        """
        if (able := self._able.current()) is not None:
            capabilities.check(request, able, self._model)
