"""What a request must pass before it is queued: its model, that model's context, and what its engine can do."""

from __future__ import annotations

from functools import cache, partial

import gevent

from api.capability_check import CapabilityCheck
from promptq.contract.admission import resolve
from promptq.contract.catalogue import ModelEntry
from promptq.contract.request import JobRequest
from promptq.queue import model_facts
from promptq.queue.prompt_limit import PromptLimit
from promptq.queue.store import JobStore


class ModelChecks:
    """Checks requests against what the workers of their models have published."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._limit = cache(self._make_limit)
        self._capabilities = cache(self._make_capabilities)

    def resolve(self, request: JobRequest) -> tuple[ModelEntry, JobRequest]:
        """As `promptq.contract.admission.resolve`, with the models that are served now."""
        return resolve(self._store.settings.catalogue, request)

    def check(self, request: JobRequest, model: str) -> None:
        """Let a request through if the model can do it.

        Raises:
            InvalidRequest: its engine cannot, or the prompt is too long for it.
        """
        self._capabilities(model).check(request)
        self._limit(model).check(request)

    def _make_limit(self, model: str) -> PromptLimit:
        read = partial(model_facts.read, self._store.client, self._store.keys.model(model))
        # In a thread of its own, and without the interpreter's lock, so that others are answered meanwhile.
        return PromptLimit(read, lambda function, given: int(gevent.get_hub().threadpool.apply(function, given)))

    def _make_capabilities(self, model: str) -> CapabilityCheck:
        key = self._store.keys.model(model)
        return CapabilityCheck(partial(model_facts.read_capabilities, self._store.client, key), model)
