"""One part high, six default, three low: does high go first, and does low starve?"""

from __future__ import annotations

import time

from _client import PromptqUser
from locust import between, task

SHARES = {"high": 1, "default": 6, "low": 3}


class MixedPriorities(PromptqUser):
    """Closed loop; a JOB row for each priority beside the common ones."""

    wait_time = between(0.1, 1.0)

    @task
    def job(self) -> None:
        """One job."""
        started = time.monotonic()
        priority = self.random.choices(list(SHARES), list(SHARES.values()))[0]
        if (job := self.submit(self.prompt(), priority=priority)) and (ended := self.wait(job)):
            self.tell(ended, started)
            self._fire(f"e2e {priority}", time.monotonic() - started, None)
