"""Counts what becomes of submits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

from promptq.contract.errors import PromptqError
from promptq.contract.metrics import ApiMetrics
from promptq.queue.store import Submitted

SubmitResult = Submitted | PromptqError


class SubmitMetrics:
    """The metrics of submits, taken for many at once.

    Args:
        model: the label of those that are by model.
    """

    def __init__(self, metrics: ApiMetrics, model: str) -> None:
        self._submitted = cache(lambda queue: metrics.submitted.labels(queue, model))
        self._cached = cache(metrics.cache_requests.labels)
        self._rejected = metrics.rejected

    def count(self, outcomes: Iterable[SubmitResult]) -> None:
        """Count acknowledged jobs that are new. What one request is refused for is counted with its answer."""
        new = [one.job for one in outcomes if isinstance(one, Submitted) and one.outcome != "repeat"]
        for priority, count in Counter(job.priority for job in new).items():
            self._submitted(priority).inc(count)
        for result, count in Counter(job.cache for job in new).items():
            self._cached(result).inc(count)

    def refuse(self, kind: str) -> None:
        """Count one refusal, by the error's type."""
        self._rejected.labels(kind).inc()
