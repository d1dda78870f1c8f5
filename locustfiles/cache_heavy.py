"""Prompts after Zipf's law: a few are asked again and again, most once. Shows the cache and the joining of twins."""

from __future__ import annotations

import time
from itertools import accumulate

from _client import PromptqUser
from locust import between, task

PROMPTS = 1000
EXPONENT = 1.1
WEIGHTS = list(accumulate(rank**-EXPONENT for rank in range(1, PROMPTS + 1)))


class CacheHeavy(PromptqUser):
    """Closed loop; JOB rows for hits, joins and misses beside the common ones."""

    wait_time = between(0.1, 1.0)

    @task
    def job(self) -> None:
        """One job."""
        started = time.monotonic()
        rank = self.random.choices(range(PROMPTS), cum_weights=WEIGHTS)[0]
        prompt = f"prompt number {rank}: {'and so on ' * 4}"
        if (job := self.submit(prompt, cache=True)) and (ended := self.wait(job)):
            self.tell(ended, started)
            self._fire(f"e2e {ended['cache']}", time.monotonic() - started, None)
