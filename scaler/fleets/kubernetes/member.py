"""One worker of the fleet: what it was told, and what its pod and its registration say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from promptq.queue.observe import WorkerRecord
from scaler.backoff import is_stable
from scaler.fleets.base import Exit
from scaler.fleets.kubernetes.pods import End, PodState

UNRESPONSIVE_SECONDS: Final = 30.0
_BY_SIGTERM: Final = -15
_BY_SIGKILL: Final = -9


def to_replace(members: Sequence[Member], template: str) -> list[str]:
    """Who of a pool is made of another template than this one, and is to go now.

    A pod that cannot start goes at once: what hinders it may be what has changed. Of the others one at a time, and
    none while another one starts or drains; idle ones first.
    """
    old = [member for member in members if member.is_made_of_another(template)]
    stuck = [member for member in old if member.state == "starting" and member.pod and member.pod.trouble]
    if any(member.state in ("starting", "draining") and member not in stuck for member in members):
        return [member.name for member in stuck]
    rest = sorted((member for member in old if member not in stuck), key=lambda member: member.state != "idle")
    return [member.name for member in (*stuck, *rest[:1])]


@dataclass(slots=True)
class Member:
    """Times are steady seconds; None: not yet.

    Attributes:
        awaited_since: since when it could have registered: its container's start, or the last moment without Redis.
        adopted: another scaler made it: when is not known.
        missing_since: when, once registered, it was first not found in the registry.
        force_at: when its pod is deleted without asking its node, once it was told to end.
        retired: it was told to drain.
        sentence: why it was ended, if this fleet did it otherwise.
    """

    name: str
    pool: str
    spawned_at: float
    awaited_since: float
    adopted: bool = False
    pod: PodState | None = None
    record: WorkerRecord | None = None
    registered_at: float | None = None
    missing_since: float | None = None
    force_at: float | None = None
    retired: bool = False
    sentence: str = ""

    @property
    def state(self) -> str:
        """starting, idle, busy or draining; one that anybody has told to end claims nothing more."""
        if self.retired or self.sentence or (self.pod and self.pod.is_leaving):
            return "draining"
        return self.record.state if self.record else "starting"

    @property
    def as_record(self) -> WorkerRecord:
        """Itself, for the roster."""
        record = self.record or WorkerRecord(self.name, "starting")
        trouble = self.pod.trouble if self.pod and self.state == "starting" else record.trouble
        return replace(record, state=self.state, model=self.pool, trouble=trouble)

    def is_made_of_another(self, template: str) -> bool:
        """Whether its pod is of another template, and nobody has told it to go."""
        return self.pod is not None and self.pod.template != template and self.state != "draining"

    def is_stable(self, now: float) -> bool:
        """Whether it has shown that workers can run here."""
        since = None if self.registered_at is None else now - self.registered_at
        return is_stable(since, self.record.jobs_finished if self.record else 0)

    def take_in(self, record: WorkerRecord | None, now: float) -> bool:
        """Note whether it is registered. Tells whether it is so for the first time."""
        self.missing_since = None if record or self.registered_at is None else self.missing_since or now
        self.record = record or self.record
        if record is None or self.registered_at is not None:
            return False
        self.registered_at = now
        return True

    def fault(self, now: float, start_timeout: float) -> str:
        """Why it is to be ended, or an empty string.

        While its pod waits for a node or for an image, that is no fault of its own, and a new pod would wait likewise.
        """
        if self.state == "draining":
            return ""
        if self.registered_at is None:
            if not (self.pod and self.pod.is_running):
                self.awaited_since = now
            return "start_timeout" if now - self.awaited_since >= start_timeout else ""
        is_silent = self.missing_since is not None and now - self.missing_since >= UNRESPONSIVE_SECONDS
        return "unresponsive" if is_silent else ""

    def exit(self, end: End) -> Exit:
        """How it ended, given what its pod shows, and what it was told."""
        code = 0 if end.code is None else end.code
        return Exit(self.name, self._reason(end), code, end.words, is_certain=end.is_certain)

    def _reason(self, end: End) -> str:
        if self.sentence:
            return self.sentence
        if end.reason == "node_lost" or not self.retired:
            was_asked = self.pod is not None and self.pod.is_leaving and end.reason in ("exited", "killed")
            return "evicted" if was_asked else end.reason
        if end.code == _BY_SIGKILL:
            return "drain_timeout"
        # Whoever else ended it too, and where nobody saw its status, it was told to go, and has gone.
        return "retired" if end.code in (None, 0, _BY_SIGTERM) else end.reason
