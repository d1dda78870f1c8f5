"""Bursts: few users, then for a while many. Given by name: `make load SHAPE=bursts`."""

from __future__ import annotations

from locust import LoadTestShape

CALM_USERS = 2
BURST_USERS = 40
PERIOD_SECONDS = 60
BURST_SECONDS = 15


class Bursts(LoadTestShape):
    """The last quarter of each minute is a burst. Ends with `--run-time`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users now, and how fast to get there."""
        time_limit = self.runner.environment.parsed_options.run_time if self.runner else None
        if time_limit and self.get_run_time() >= time_limit:
            return None
        is_burst = self.get_run_time() % PERIOD_SECONDS >= PERIOD_SECONDS - BURST_SECONDS
        return (BURST_USERS if is_burst else CALM_USERS), 100
