"""The engine that returns the prompt's words at a set pace: for tests, demos and queue benchmarks. No torch.

A word's token id is its place.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gpu_worker.engines.base import (
    Capabilities,
    EngineInfo,
    Event,
    FinishReason,
    Row,
    RowEnd,
    StepResult,
    StepStats,
    check_rows,
)
from gpu_worker.engines.stop_filter import StopFilter
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings

log = logging.getLogger(__name__)

# A step never sleeps longer, so that a cancel or a new row is seen soon.
LONGEST_SLEEP_SECONDS = 0.05
AUTO_SLOTS = 16


@dataclass(slots=True, eq=False)
class _Speaker:
    row: Row
    words: list[str]
    stops: StopFilter
    started: float | None = None
    resumed: int = 0
    spoken: int = 0
    text: str = ""
    batch_size: int = 0
    fresh: list[str] = field(default_factory=list)


class EchoEngine:
    """Generates each row's own words, one per token, with the row's limits and stop strings.

    Args:
        slots: rows at once.
        tokens_per_second: the pace of each row; 0 ends every row at its first step.
        sleep: waits for so many seconds when no row has a word due.
        name: what clients call the model.
    """

    def __init__(
        self,
        slots: int,
        tokens_per_second: float,
        sleep: Callable[[float], None] = time.sleep,
        name: str = "echo",
    ) -> None:
        self._slots = slots
        self._pace = tokens_per_second
        self._sleep = sleep
        self._live: dict[str, _Speaker] = {}
        self._cancelled: set[str] = set()
        self._info = EngineInfo(
            model=name,
            device="cpu",
            dtype="none",
            slots=slots,
            context_length=0,
            capabilities=Capabilities(resume=True, preempt=True, streaming=True),
            identity="echo",
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def free_slots(self) -> int:
        return self._slots - len(self._live)

    def live_rows(self) -> int:
        return len(self._live)

    def add(self, rows: Sequence[Row]) -> None:
        check_rows(rows, self.free_slots(), self._live.keys())
        self._live |= {row.id: _speaker(row) for row in rows}

    def cancel(self, ids: Iterable[str]) -> None:
        self._cancelled |= self._live.keys() & set(ids)

    def preempt(self, ids: Iterable[str]) -> list[str]:
        gone = [id for id in ids if id in self._live and id not in self._cancelled]
        for id in gone:
            del self._live[id]
        return gone

    def close(self) -> None:
        self._live.clear()

    def step(self, now: float) -> StepResult:
        """Say every word that is due at `now`; sleep a little if none is."""
        live = len(self._live)
        for speaker in self._live.values():
            if speaker.batch_size < live:
                speaker.batch_size = live
        events = [event for speaker in list(self._live.values()) if (event := self._advance(speaker, now))]
        if not events:
            self._rest(now)
        return StepResult(events, StepStats(rows=sum(event.tokens > 0 for event in events)))

    def _advance(self, speaker: _Speaker, now: float) -> Event | None:
        before = speaker.spoken
        reason = self._interrupted(speaker, now) or self._speak(speaker, now)
        if reason is None and speaker.spoken == before:
            return None
        text = "".join(speaker.fresh) + (speaker.stops.flush() if reason else "")
        speaker.fresh.clear()
        speaker.text += text
        finished = self._finish(speaker, reason) if reason else None
        return Event(speaker.row.id, text, range(before, speaker.spoken), finished)

    def _interrupted(self, speaker: _Speaker, now: float) -> FinishReason | None:
        if speaker.row.id in self._cancelled:
            return FinishReason.CANCELLED
        deadline = speaker.row.deadline
        return FinishReason.TIMEOUT if deadline is not None and deadline <= now else None

    def _speak(self, speaker: _Speaker, now: float) -> FinishReason | None:
        limit = min(len(speaker.words), speaker.row.request.max_tokens)
        speaker.started = now if speaker.started is None else speaker.started
        due = min(limit, speaker.resumed + self._due(speaker.started, now))
        # Without stop strings nothing depends on the single word.
        at_once = 1 if speaker.row.request.stop else due - speaker.spoken
        while speaker.spoken < due and not speaker.stops.stopped:
            _say(speaker, at_once)
        if speaker.stops.stopped or speaker.spoken == len(speaker.words):
            return FinishReason.STOP
        return FinishReason.LENGTH if speaker.spoken == limit else None

    def _due(self, started: float, now: float) -> int:
        if not self._pace:
            return 2**63
        # Half a microsecond of grace: the differences of two large clock readings are not exact.
        return int((now - started + 5e-7) * self._pace)

    def _finish(self, speaker: _Speaker, reason: FinishReason) -> RowEnd:
        del self._live[speaker.row.id]
        self._cancelled.discard(speaker.row.id)
        return RowEnd(reason, speaker.text, len(speaker.words), speaker.spoken, speaker.batch_size)

    def _rest(self, now: float) -> None:
        # No row has a word due, so each has been started and the pace is not 0.
        due = [
            (speaker.started or 0.0) + (speaker.spoken + 1 - speaker.resumed) / self._pace
            for speaker in self._live.values()
        ]
        wait = min(due, default=now) - now
        if wait > 0:
            self._sleep(min(wait, LONGEST_SLEEP_SECONDS))


def _speaker(row: Row) -> _Speaker:
    speaker = _Speaker(row, _said(row.request).split(), StopFilter(row.request.stop), resumed=len(row.progress))
    for _ in row.progress:
        _say(speaker, 1)
    speaker.text = "".join(speaker.fresh)
    speaker.fresh.clear()
    return speaker


def _say(speaker: _Speaker, count: int) -> None:
    gap = " " if speaker.spoken else ""
    text = gap + " ".join(speaker.words[speaker.spoken :][:count])
    speaker.fresh.append(speaker.stops.push(text) if speaker.row.request.stop else text)
    speaker.spoken += count


def _said(request: GenerateRequest) -> str:
    if request.messages is None:
        return request.prompt or ""
    return next((turn.content or "" for turn in reversed(request.messages) if turn.role == "user"), "")


def create(settings: WorkerSettings, _done: Callable[[str], None]) -> EchoEngine:
    """The engine that the settings describe."""
    slots = AUTO_SLOTS if settings.slots == "auto" else settings.slots
    if settings.echo_start_seconds:
        _sleep_until_signalled(settings.echo_start_seconds)
    return EchoEngine(slots, settings.echo_tokens_per_second, name=settings.model_name)


def _sleep_until_signalled(seconds: float) -> None:
    """Sleep for so long. Any signal that is handled ends it, so that a worker told to stop while it starts stops at
    once; `time.sleep` would go on after the handler. Call from the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        log.info("the start takes %g s, as PROMPTQ_ECHO_START_SECONDS says", seconds)
        select.select([reader], [], [], seconds)
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
