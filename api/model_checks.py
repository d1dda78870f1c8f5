"""What a request must pass before it is queued: its model, that model's context, and what its engine can do."""

from __future__ import annotations

from functools import cache, partial

from api.capability_check import CapabilityCheck
from api.prompt_limit import PromptLimit
from promptq.contract.catalogue import ModelEntry
from promptq.contract.errors import InvalidRequest
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
        """The model that a request names, and the request with the adapter that the name may have.

        Raises:
            ModelNotFound: there is no such model.
            InvalidRequest: it names two adapters.
        """
        entry, adapter = self._store.settings.catalogue.find(request.model)
        if request.adapter and adapter not in ("", request.adapter):
            raise InvalidRequest(f"adapter: the model names another one, {adapter!r}.", param="adapter")
        adapter = adapter or request.adapter
        if adapter and adapter not in entry.adapters:
            raise InvalidRequest(f"The model {entry.name} has no adapter {adapter!r}.", param="adapter")
        return entry, request.model_copy(update={"adapter": adapter}) if adapter else request

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
