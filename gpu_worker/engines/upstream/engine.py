"""The engine in front of an OpenAI-compatible server: sends each row as one request, and reads what comes."""

from __future__ import annotations

import itertools
import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gpu_worker.engines.base import (
    EngineInfo,
    Event,
    FinishReason,
    LostRow,
    Row,
    StepResult,
    StepStats,
    check_rows,
)
from gpu_worker.engines.upstream.breaker import Breaker
from gpu_worker.engines.upstream.chunks import Finish, Piece
from gpu_worker.engines.upstream.concurrency import Concurrency
from gpu_worker.engines.upstream.connection import Connection
from gpu_worker.engines.upstream.exchanges import News, Request
from gpu_worker.engines.upstream.failures import Failure, Kind
from gpu_worker.engines.upstream.request_body import Dialect
from gpu_worker.engines.upstream.rows import LiveRow

LONGEST_WAIT_SECONDS = 0.05
"""A step never waits longer, so that a cancel or a new row is seen soon."""
PATIENCE = 4
"""So often a job that the server fails on goes back unharmed: till then it may be the server. Then attempts count."""
REMEMBERED_JOBS = 1000


@dataclass(slots=True)
class _Step:
    """What came of the rows in one step."""

    touched: dict[int, LiveRow] = field(default_factory=dict)
    handed_back: list[str] = field(default_factory=list)
    lost: list[LostRow] = field(default_factory=list)


class UpstreamEngine:
    """Rows are requests, slots are requests at once. Nothing is computed here.

    Args:
        server: what the server is called in `trouble`.
        connection: not started yet.
        clock: steady seconds, for the breaker and the number of slots.
    """

    def __init__(
        self,
        info: EngineInfo,
        dialect: Dialect,
        connection: Connection,
        breaker: Breaker,
        concurrency: Concurrency,
        server: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._info = info
        self._dialect = dialect
        self._connection = connection
        self._breaker = breaker
        self._concurrency = concurrency
        self._server = server
        self._clock = clock
        self._numbers = itertools.count()
        self._newest = -1
        self._by_id: dict[str, LiveRow] = {}
        self._by_number: dict[int, LiveRow] = {}
        self._cancelled: set[str] = set()
        self._failed_on: OrderedDict[str, int] = OrderedDict()
        self._why = ""
        connection.start()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def trouble(self) -> str:
        """Why the server gets no jobs now, or an empty string."""
        return self._why if self._breaker.is_open else ""

    def free_slots(self) -> int:
        free = max(0, self._concurrency.limit - len(self._by_id))
        room = self._breaker.room(self._clock())
        return free if room is None else min(free, room)

    def live_rows(self) -> int:
        return len(self._by_id)

    def add(self, rows: Sequence[Row]) -> None:
        check_rows(rows, self.free_slots(), self._by_id.keys())
        for row in rows:
            self._send(row)

    def cancel(self, ids: Iterable[str]) -> None:
        self._cancelled |= self._by_id.keys() & set(ids)

    def preempt(self, _ids: Iterable[str]) -> list[str]:
        """None: a server goes on with no text that it began earlier."""
        return []

    def close(self) -> None:
        """Close every connection: the server stops what it generates for us."""
        self._by_id.clear()
        self._by_number.clear()
        self._connection.close()

    def step(self, now: float) -> StepResult:
        """Pass on what came from the server; wait a little if nothing has.

        Raises:
            EngineBroken: the connection's thread has died.
        """
        self._connection.check()
        live = len(self._by_id)
        for row in self._by_id.values():
            row.batch_size = max(row.batch_size, live)
        step = _Step()
        self._interrupt(step, now)
        for number, news in self._news(0.0 if step.touched else LONGEST_WAIT_SECONDS):
            self._take(number, news, step)
        if not self._breaker.is_open:
            self._concurrency.note(live, self._clock())
        events = [event for row in step.touched.values() if (event := row.event())]
        return StepResult(events, _stats(events), step.handed_back, step.lost)

    def _send(self, row: Row) -> None:
        self._newest = number = next(self._numbers)
        live = LiveRow(row, number)
        self._by_id[row.id] = self._by_number[number] = live
        self._breaker.sent(number)
        self._connection.send(Request(number, self._dialect.wire(row.request), row.request.top_logprobs))

    def _news(self, wait_seconds: float) -> Iterator[tuple[int, News]]:
        """All that has come; if nothing has, the first that comes within the time."""
        arrived = self._connection.news
        try:
            yield arrived.get(timeout=wait_seconds) if wait_seconds else arrived.get_nowait()
            while True:
                yield arrived.get_nowait()
        except queue.Empty:
            return

    def _interrupt(self, step: _Step, now: float) -> None:
        """End the rows that were cancelled, and those whose time is over. The server stops when its client is gone."""
        for row in list(self._by_id.values()):
            deadline = row.row.deadline
            is_late = deadline is not None and deadline <= now
            if is_late or row.row.id in self._cancelled:
                row.interrupt(FinishReason.CANCELLED if row.row.id in self._cancelled else FinishReason.TIMEOUT)
                self._breaker.gone(row.number)
                self._connection.abort(row.number)
                self._end(row, step)

    def _take(self, number: int, news: News, step: _Step) -> None:
        row = self._by_number.get(number)
        if row is None:
            return
        if isinstance(news, Failure):
            self._fail(row, news, step)
            return
        self._answered(row)
        step.touched[number] = row
        if isinstance(news, Piece):
            self._take_piece(row, news, step)
        else:
            self._finish(row, news, step)

    def _take_piece(self, row: LiveRow, piece: Piece, step: _Step) -> None:
        row.take(piece)
        if row.end:
            self._connection.abort(row.number)
            self._end(row, step)

    def _finish(self, row: LiveRow, finish: Finish, step: _Step) -> None:
        row.finish(finish)
        self._end(row, step)

    def _fail(self, row: LiveRow, failure: Failure, step: _Step) -> None:
        if failure.kind is Kind.REQUEST:
            self._answered(row)
            row.fail(failure.type, _message(row, failure))
            self._end(row, step)
            return
        self._refused(row, failure)
        self._forget(row)
        if failure.kind is Kind.LOST or (failure.kind is Kind.FAILED and self._is_patience_over(row.row.id)):
            step.touched.pop(row.number, None)
            step.lost.append(LostRow(row.row.id, failure.message))
        else:
            step.handed_back.append(row.row.id)

    def _answered(self, row: LiveRow) -> None:
        self._breaker.answered(row.number)
        self._failed_on.pop(row.row.id, None)

    def _refused(self, row: LiveRow, failure: Failure) -> None:
        """Leave the server alone for a while."""
        now = self._clock()
        if self._breaker.refused(row.number, now, failure.retry_after):
            self._why = f"{self._server}: {failure.message}; next try with a job in {self._breaker.delay:.1f} s"
        if failure.is_busy:
            self._concurrency.refused(row.number, self._newest, now)

    def _is_patience_over(self, job_id: str) -> bool:
        """Count that the server failed on a job before it said anything. Tells whether the job may be why."""
        times = self._failed_on.pop(job_id, 0) + 1
        self._failed_on[job_id] = times
        if len(self._failed_on) > REMEMBERED_JOBS:
            self._failed_on.popitem(last=False)
        return times > PATIENCE

    def _end(self, row: LiveRow, step: _Step) -> None:
        step.touched[row.number] = row
        self._forget(row)

    def _forget(self, row: LiveRow) -> None:
        del self._by_id[row.row.id], self._by_number[row.number]
        self._cancelled.discard(row.row.id)


def _message(row: LiveRow, failure: Failure) -> str:
    """What the server said, with the name of the one field that few servers with embeddings take."""
    return failure.naming("dimensions") if row.row.request.dimensions is not None else failure.message


def _stats(events: Sequence[Event]) -> StepStats:
    """Prompts are counted when their rows end: only then the server tells."""
    ends = [event.end for event in events if event.end]
    cached = sum(end.reused_tokens for end in ends)
    computed = max(0, sum(end.prompt_tokens for end in ends) - cached)
    return StepStats(sum(event.tokens > 0 for event in events), computed, cached)
