"""The metrics of submits: jobs acknowledged, and requests refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

from promptq.contract.errors import PromptqError
from promptq.contract.metrics import ApiMetrics
from promptq.queue.store import Submitted

SubmitResult = Submitted | PromptqError


class SubmitMetrics:
    """Counts submits, many at once."""

    def __init__(self, metrics: ApiMetrics) -> None:
        self._submitted = cache(lambda queue: metrics.submitted.labels(queue.priority, queue.model))
        self._cached = cache(metrics.cache_requests.labels)
        self._rejected = metrics.rejected

    def count(self, results: Iterable[SubmitResult]) -> None:
        """Count the jobs that are new among those acknowledged. Refusals are counted by `refuse`."""
        new = [one.job for one in results if isinstance(one, Submitted) and one.outcome != "repeat"]
        for queue, count in Counter(job.queue for job in new).items():
            self._submitted(queue).inc(count)
        for result, count in Counter(job.cache for job in new).items():
            self._cached(result).inc(count)

    def refuse(self, kind: str) -> None:
        """Count one refusal, by the error's type."""
        self._rejected.labels(kind).inc()
