"""What the views work with, made once for an application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask, current_app
from prometheus_client import CollectorRegistry

from api.prompt_limit import PromptLimit
from api.submit_metrics import SubmitMetrics
from api.waiting.submit_batcher import SubmitBatcher
from api.waiting.waiters import Waiters
from promptq.contract.job import Job
from promptq.contract.metrics import ApiMetrics
from promptq.contract.settings import ApiSettings
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore

if TYPE_CHECKING:
    from api.http.access import Access

EXTENSION = "promptq"


@dataclass(frozen=True, slots=True)
class Services:
    """The application's parts."""

    settings: ApiSettings
    store: JobStore
    observer: Observer
    waiters: Waiters
    registry: CollectorRegistry
    metrics: ApiMetrics
    access: Access
    prompt_limit: PromptLimit
    submit_batcher: SubmitBatcher
    submit_metrics: SubmitMetrics

    def wait_for(self, job_id: str, seconds: float) -> Job:
        """The job, once it has ended or the time, clamped to the limit, is over."""
        if seconds <= 0:
            return self.read(job_id)
        return self.waiters.wait_for(job_id, min(seconds, self.settings.wait_limit_seconds), self.read)

    def read(self, job_id: str) -> Job:
        """The job, if whoever asks may see it.

        Raises:
            JobNotFound: there is none, or it belongs to another key.
        """
        return self.access.visible(self.store.get(job_id))

    def read_many(self, ids: Sequence[str]) -> list[Job | None]:
        """These jobs in one round trip; None for one that does not exist, or belongs to another key."""
        return [job if job and self.access.sees(job) else None for job in self.store.get_many(ids)]


def services() -> Services:
    """Those of the application that handles the present request."""
    return of(current_app)


def of(app: Flask) -> Services:
    """The parts of an application."""
    parts: Services = app.extensions[EXTENSION]
    return parts
