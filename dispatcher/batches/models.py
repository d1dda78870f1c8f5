"""What is known of the models: what their engines can do, and how much waits in their queues."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from dispatcher.batches.pace import Queue
from promptq.contract.queues import queues_of
from promptq.contract.request import JobRequest
from promptq.queue import model_facts
from promptq.queue.connection import answering
from promptq.queue.prompt_limit import PromptLimit
from promptq.queue.store import JobStore

FRESH_SECONDS = 30.0


class Models(Mapping[str, frozenset[str] | None]):
    """By model, what its engine can do, as it was half a minute ago at the latest; None: no worker has told."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._known: dict[str, frozenset[str] | None] = {}
        self._read_at: dict[str, float] = {}
        self._limit = cache(self._make_limit)

    def __getitem__(self, model: str) -> frozenset[str] | None:
        now = time.monotonic()
        if now - self._read_at.get(model, float("-inf")) >= FRESH_SECONDS:
            self._known[model] = model_facts.read_capabilities(self._store.client, self._store.keys.model(model))
            # What is not known yet may be known in a moment.
            self._read_at[model] = now if self._known[model] is not None else now - FRESH_SECONDS + 1
        return self._known[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def check_length(self, request: JobRequest, model: str) -> None:
        """Let a request through if its prompt has room in the model's context, where a worker has told that.

        Raises:
            InvalidRequest: it has not.
            RedisUnavailable: it is not known.
        """
        self._limit(model).check(request)

    def _make_limit(self, model: str) -> PromptLimit:
        return PromptLimit(partial(model_facts.read, self._store.client, self._store.keys.model(model)))

    def queue(self, model: str) -> Queue:
        """The jobs of a model that wait now, in one round trip.

        Raises:
            RedisUnavailable: it does not answer.
        """
        keys, default = self._store.keys, self._store.settings.default_model
        names = [queue.rq_name(default) for queue in queues_of(model)]
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.llen(keys.queue(name))
                pipe.zcard(keys.deferred(name))
            pipe.get(keys.drain_rate(model))
            *counts, rate = pipe.execute()
        found: list[Any] = counts
        return Queue(sum(found), sum(found[-2:]), float(rate or 0))
