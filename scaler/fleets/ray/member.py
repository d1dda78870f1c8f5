"""One worker of a Ray cluster, as the fleet remembers it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from promptq.queue.observe import WorkerRecord
from scaler.backoff import is_stable


@dataclass(slots=True)
class Member:
    """Times are steady seconds. None: not yet.

    Attributes:
        awaited_since: since when it could have registered: when it got a node, or the last moment without Redis.
        waits_for: why it has no node yet.
        host: of its node; empty: it has none yet.
        deadline: when it is killed, once it was told to stop.
        sentence: why it was killed, if this fleet did it.
        killed_at: when it was.
    """

    name: str
    pool: str
    spawned_at: float
    awaited_since: float
    waits_for: str = ""
    host: str = ""
    record: WorkerRecord | None = None
    registered_at: float | None = None
    missing_since: float | None = None
    deadline: float | None = None
    sentence: str = ""
    killed_at: float | None = None

    @property
    def state(self) -> str:
        """starting, idle, busy or draining."""
        if self.deadline is not None:
            return "draining"
        return self.record.state if self.record else "starting"

    def is_stable(self, now: float) -> bool:
        """Whether it has shown that workers can run there."""
        since = None if self.registered_at is None else now - self.registered_at
        return is_stable(since, self.record.jobs_finished if self.record else 0)

    def shown(self) -> WorkerRecord:
        """Itself, as the roster has it; of one that starts, `trouble` says what it waits for."""
        known = self.record or WorkerRecord(self.name, "starting", host=self.host, trouble=self.waits_for)
        return replace(known, state=self.state, model=self.pool)
