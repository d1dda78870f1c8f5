"""How long to wait before the next try after workers that crashed."""

from __future__ import annotations

LONGEST_SECONDS = 60.0
STABLE_SECONDS = 30.0


def is_stable(registered_seconds: float | None, jobs_finished: int) -> bool:
    """Whether a worker has shown that workers can run here: its end, however sudden, is then no crash at the start.

    Args:
        registered_seconds: for how long it has been registered; None: it never was.
    """
    return jobs_finished > 0 or (registered_seconds is not None and registered_seconds >= STABLE_SECONDS)


class Backoff:
    """1, 2, 4 … 60 seconds, from the first failure to the first worker that proves stable. Times are steady seconds."""

    def __init__(self) -> None:
        self.failures = 0
        self.last_failure = 0.0
        self.retry_at = 0.0

    def fail(self, now: float) -> None:
        """A worker ended too early. Those that fall together count once."""
        if now >= self.retry_at:
            self.failures += 1
            self.retry_at = now + min(LONGEST_SECONDS, 2.0 ** (self.failures - 1))
        self.last_failure = now

    def proved(self, spawned_at: float) -> None:
        """A worker is stable; only one spawned after the last failure shows that the cause is gone."""
        if spawned_at >= self.last_failure:
            self.failures = 0
            self.retry_at = 0.0

    def retry_in(self, now: float) -> float | None:
        """Seconds until the next try after a failure, or None when nothing waits for it."""
        left = self.retry_at - now
        return left if self.failures and left > 0 else None

    def room(self, starting: int, now: float) -> int | None:
        """How many workers may start now; None: as many as wanted. After a failure one probes for all."""
        if not self.failures:
            return None
        return 0 if starting or now < self.retry_at else 1
