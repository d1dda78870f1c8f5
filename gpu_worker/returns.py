"""Claims that go back to the queue though their worker goes on: rows that gave way, and what an engine gave up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from promptq.contract.errors import RedisUnavailable
from promptq.queue.losses import Loss, redeliver
from promptq.queue.store import Claim, JobStore
from promptq.runtime import failpoints

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Returned:
    """One claim on its way back.

    Attributes:
        reason: preempted (with its progress), upstream (not begun) or lost (begun, and lost: the attempt counts).
        cause: of a loss, for people.
    """

    claim: Claim
    reason: Literal["preempted", "upstream", "lost"]
    cause: str = ""


class Returns:
    """Puts claims back. The same once more changes nothing, so after an error all can be tried again.

    Args:
        keep: stores the progress of rows that gave way, before their jobs are put back.
    """

    def __init__(self, store: JobStore, keep: Callable[[Sequence[Claim]], None]) -> None:
        self._store = store
        self._keep = keep

    def try_to_send(self, returned: Sequence[Returned]) -> bool:
        """Put these back at the front of their queues. Tells whether that could be done.

        A full server keeps no progress, and yet stores endings, so who calls this goes on with those.
        """
        try:
            self._send(returned)
        except RedisUnavailable as error:
            log.warning("%d jobs are not put back yet: %s", len(returned), error)
            return False
        return True

    def release(self, claims: Sequence[Claim]) -> None:
        """Put claims back once, the attempt not counted; where that fails, their jobs come back with their leases."""
        try:
            failpoints.hit("worker.releasing")
            released = self._store.release(claims)
            failpoints.hit("worker.released")
            log.info("%d of %d jobs were put back", released, len(claims))
        except RedisUnavailable as error:
            log.warning("%d jobs come back when their leases end: %s", len(claims), error)

    def _send(self, returned: Iterable[Returned]) -> None:
        by_reason: dict[str, list[Returned]] = {"preempted": [], "upstream": [], "lost": []}
        for one in returned:
            by_reason[one.reason].append(one)
        self._send_preempted([one.claim for one in by_reason["preempted"]])
        self._store.release([one.claim for one in by_reason["upstream"]], reason="upstream")
        redelivered = redeliver(self._store, [Loss(one.claim, one.cause) for one in by_reason["lost"]])
        if by_reason["lost"]:
            log.warning("The upstream server lost %d texts: %s", len(by_reason["lost"]), redelivered)

    def _send_preempted(self, claims: Sequence[Claim]) -> None:
        """Behind their newest tokens."""
        if not claims:
            return
        try:
            self._keep(claims)
        except RedisUnavailable:
            raise
        except Exception:
            log.exception("The newest tokens of %d rows are not kept.", len(claims))
        failpoints.hit("worker.gave_way")
        self._store.release(claims, reason="preempted")
        failpoints.hit("worker.put_back")
