"""Submit, then wait with `?wait=`: one request a job, answered when it ends."""

from __future__ import annotations

import time

from _client import PromptqUser
from locust import between, task


class LongPoll(PromptqUser):
    """Closed loop: the next job follows the end of the last one."""

    wait_time = between(0.1, 1.0)

    @task
    def job(self) -> None:
        """One job."""
        started = time.monotonic()
        if job := self.submit(self.prompt()):
            self.tell(self.wait(job), started)
