"""A client of promptq for Locust users: submits, waits, and fires the JOB rows.

Read the JOB rows: Locust's Aggregated row mixes polls with jobs. `JOB e2e` runs from the (intended) send to the moment
at which the client knows the end; `JOB queue` is the time that the job waited for a worker.
"""

from __future__ import annotations

import random
import time
from typing import Any

import _metrics  # noqa: F401
import _options  # noqa: F401
import _report  # noqa: F401
from gevent import sleep
from locust import FastHttpUser

WORDS = [
    "river", "mountain", "winter", "bread", "lantern", "harbour", "letter", "garden", "engine", "story",
    "cloud", "silver", "market", "window", "road", "music", "orchard", "signal", "paper", "island",
    "candle", "bridge", "copper", "forest", "morning", "teacher", "compass", "kettle", "ladder", "meadow",
]  # fmt: skip
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})
POLL_SECONDS = 0.25
WAIT_SECONDS = 30
MOST_OPEN_REQUESTS = 10_000


class JobFailed(Exception):
    """The job ended otherwise than succeeded; the message has its status and error type."""


class PromptqUser(FastHttpUser):
    """What every user does: make a prompt, submit it, wait for its end."""

    abstract = True
    # Locust's default of 10 would hold back the open-loop user, whose jobs overlap.
    concurrency = MOST_OPEN_REQUESTS
    network_timeout = WAIT_SECONDS + 30.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        environment.users_made = getattr(environment, "users_made", 0) + 1
        self.random = random.Random(f"{options.seed}/{type(self).__name__}/{environment.users_made}")
        self.headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}

    def prompt(self) -> str:
        """A few words, which follow from the seed."""
        return " ".join(self.random.choices(WORDS, k=self.environment.parsed_options.prompt_words))

    def submit(self, prompt: str, cache: bool = False, **fields: Any) -> dict[str, Any] | None:
        """Submit a job, and keep away for a while when the queue is full."""
        limit = self.environment.parsed_options.max_tokens
        body = {"prompt": prompt, "max_tokens": limit, "cache": cache, **fields}
        with self.client.post(
            "/v1/jobs", json=body, headers=self.headers, name="submit", catch_response=True
        ) as answer:
            if answer.status_code in (200, 202):
                return dict(answer.json())
            answer.failure(f"{answer.status_code} {_error_type(answer)}")
            retry_after = float((answer.headers or {}).get("Retry-After", 1))
        sleep(retry_after)
        return None

    def poll(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Ask until the job has ended."""
        while job["status"] not in ENDED:
            sleep(POLL_SECONDS)
            if (seen := self._read(job["urls"]["self"], "poll")) is None:
                return None
            job = seen
        return job

    def wait(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Let the service answer when the job has ended."""
        while job["status"] not in ENDED:
            if (seen := self._read(f"{job['urls']['self']}?wait={WAIT_SECONDS}", "wait")) is None:
                return None
            job = seen
        return job

    def tell(self, job: dict[str, Any] | None, started: float) -> None:
        """Fire the JOB rows of a job that was sent, or meant to be sent, at `started` (steady seconds)."""
        if job is None:
            return
        kind = (job["error"] or {}).get("type", "")
        failure = None if job["status"] == "succeeded" else JobFailed(f"{job['status']} {kind}".strip())
        self._fire("e2e", time.monotonic() - started, failure)
        if (seconds := job["timings"]["queue_seconds"]) is not None:
            self._fire("queue", seconds, None)

    def _read(self, path: str, name: str) -> dict[str, Any] | None:
        with self.client.get(path, headers=self.headers, name=name, catch_response=True) as answer:
            if answer.status_code == 200:
                return dict(answer.json())
            answer.failure(f"{answer.status_code} {_error_type(answer)}")
        return None

    def _fire(self, name: str, seconds: float, failure: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type="JOB",
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=failure,
            context={},
        )


def _error_type(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["type"])
    except (TypeError, KeyError, ValueError):
        return "no answer of the API's"
