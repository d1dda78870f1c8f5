"""What a request must pass before it is queued: its model, that model's context, and what its engine can do."""

from __future__ import annotations

from functools import cache, partial

from api.capability_check import CapabilityCheck
from api.prompt_limit import PromptLimit
from promptq.contract.admission import resolve
from promptq.contract.catalogue import ModelEntry
from promptq.contract.request import JobRequest
from promptq.queue import model_facts
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
        return PromptLimit(partial(model_facts.read, self._store.client, self._store.keys.model(model)))

    def _make_capabilities(self, model: str) -> CapabilityCheck:
        key = self._store.keys.model(model)
        return CapabilityCheck(partial(model_facts.read_capabilities, self._store.client, key), model)
