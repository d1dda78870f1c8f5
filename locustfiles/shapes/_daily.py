"""A day in ten minutes. Given by name: `make load SHAPE=daily`."""

from __future__ import annotations

import math

from locust import LoadTestShape

NIGHT_USERS = 1
NOON_USERS = 30
DAY_SECONDS = 600


class Daily(LoadTestShape):
    """From night over noon to night, along a sine. Ends after a day, or with `--run-time`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users now, and how fast to get there."""
        time_limit = self.runner.environment.parsed_options.run_time if self.runner else None
        if self.get_run_time() >= (time_limit or DAY_SECONDS):
            return None
        height = (1 - math.cos(2 * math.pi * self.get_run_time() / DAY_SECONDS)) / 2
        return round(NIGHT_USERS + height * (NOON_USERS - NIGHT_USERS)), 10
