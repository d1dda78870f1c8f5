"""What the end of a run shows: gathered by its harness, and judged by `tests.chaos.invariants`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptq.contract.job import Job
from promptq.queue.store import JobStore
from promptq.storage.storage import Storage
from tests.chaos.witness import Witnessed

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class JobFact:
    """One job that a client was told is taken. Moments are seconds since the epoch.

    Attributes:
        ids: as they were given, once for each acknowledgement.
        expected: its text; None: nobody knows.
        status: as it is now; empty: it is there no more.
        error, text: of its end.
        ran: it was generated, and not answered from the cache or by a twin.
        seen, now: the job as a client saw it end, and as it is now; None: nobody looked.
        seen_at, finished_at: when that client saw it, and when it had ended.
        reading: what was wrong with its text as somebody read it while it came.
    """

    name: str
    ids: Sequence[str]
    expected: str | None = None
    status: str = ""
    error: str = ""
    text: str | None = None
    attempts: int = 0
    ran: bool = True
    acknowledged_at: float = 0.0
    seen: Any = None
    now: Any = None
    seen_at: float = 0.0
    finished_at: float = 0.0
    reading: Sequence[str] = ()

    @property
    def id(self) -> str:
        """The one that counts."""
        return self.ids[-1]

    @classmethod
    def of(cls, name: str, ids: Sequence[str], job: Job | None, **fields: Any) -> JobFact:
        """Of what the store has."""
        if job is None:
            return cls(name, ids, **fields)
        text = job.result.text if job.result else None
        error = job.error.type if job.error else ""
        ran = job.cache in ("miss", "bypass")
        return cls(name, ids, status=job.status, error=error, text=text, attempts=job.attempts, ran=ran, **fields)


@dataclass(frozen=True)
class BatchFact:
    """One batch: as the API gives it, the entries of its files, and the text that each line should have."""

    id: str
    status: str
    counts: Mapping[str, int]
    answered: Sequence[Mapping[str, Any]]
    failed: Sequence[Mapping[str, Any]]
    expected: Callable[[str], str]
    wanted: Sequence[str]

    @property
    def seen(self) -> Counter[str]:
        """How often each line is in a file."""
        return Counter(entry["custom_id"] for entry in (*self.answered, *self.failed))


@dataclass(frozen=True)
class Facts:
    """Everything, of a service at rest.

    Attributes:
        submits: distinct jobs that were asked for; None: nobody counted.
        events: by the id of what ended, the ids of the events with which a receiver was told; each try is one.
        told: of whose end there must be an event.
        most_doubled: tokens that may have been generated once more than needed, of one job.
        most_attempts: of one job.
        errors: with which a job may have failed.
        excuse: whether a kill of Redis may have taken what was acknowledged at a moment.
        stopped: every program has ended in order.
    """

    store: JobStore
    jobs: Sequence[JobFact] = ()
    submits: int | None = None
    batches: Sequence[BatchFact] = ()
    events: Mapping[str, Sequence[str]] = field(default_factory=dict)
    told: Sequence[str] = ()
    witness: Witnessed | None = None
    most_doubled: int = 0
    most_attempts: int | None = None
    errors: frozenset[str] = frozenset()
    storage: Storage | None = None
    excuse: Callable[[float], bool] = lambda _moment: False
    stopped: bool = False
