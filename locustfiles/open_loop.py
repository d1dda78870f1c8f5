"""Jobs arrive when they arrive, however slow the service is: a stall cannot hide them.

The other users wait for their last job before they send the next one, so a slow service is asked less. Here arrivals
follow a seeded Poisson process, and latency counts from the intended send time.
"""

from __future__ import annotations

import time

from _client import PromptqUser
from gevent import sleep
from gevent.pool import Group
from locust import task


class OpenLoop(PromptqUser):
    """One user sends all jobs; `--offered-rate` says how many a second."""

    fixed_count = 1

    def on_start(self) -> None:
        """The schedule begins now."""
        self.jobs = Group()
        self.due = time.monotonic()

    def on_stop(self) -> None:
        """Jobs still open are not awaited: they are neither good nor failed."""
        self.jobs.kill(block=False)

    @task
    def arrival(self) -> None:
        """The next arrival; when this client is late, it is sent at once, and still counts from when it was due."""
        self.due += self.random.expovariate(self.environment.parsed_options.offered_rate)
        sleep(max(0.0, self.due - time.monotonic()))
        self.jobs.spawn(self._job, self.due, self.prompt())

    def _job(self, due: float, prompt: str) -> None:
        if job := self.submit(prompt):
            self.tell(self.wait(job), due)
