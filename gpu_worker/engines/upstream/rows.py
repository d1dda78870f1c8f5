"""One row that a server works on: what came of it, and what it tells in the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpu_worker.engines.base import Event, FinishReason, Row, RowEnd
from gpu_worker.engines.stop_filter import StopFilter
from gpu_worker.engines.upstream.chunks import Finish, Piece, Usage
from promptq.contract.logprobs import TokenLogprob

_UNCOUNTED = Usage()
"""Of a row that ended before the server told."""


@dataclass(slots=True, eq=False)
class LiveRow:
    """A row and its request.

    A server gives no token ids: a token's id here is its place in the text, which nobody goes on from.

    Attributes:
        number: of the request.
        text: all that can no longer change.
        tokens: so many were counted.
        batch_size: the most rows that were live in one step with it.
    """

    row: Row
    number: int
    stops: StopFilter = field(init=False)
    text: str = ""
    tokens: int = 0
    batch_size: int = 0
    end: RowEnd | None = None
    _fresh: str = ""
    _told: int = 0
    _logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stops = StopFilter(self.row.request.stop)

    def take(self, piece: Piece) -> None:
        """More text came. Where it has a stop string that the server was not told of, the row ends."""
        self._fresh += self.stops.push(piece.text)
        self.tokens += piece.tokens
        self._logprobs.extend(piece.logprobs)
        if self.stops.stopped:
            self._end(FinishReason.STOP)

    def finish(self, finish: Finish) -> None:
        """The text ended, or the embedding came."""
        counted = finish.usage.completion_tokens
        self._fresh += self.stops.flush() + finish.text
        # What was counted here has been told; the server's own count adds what its chunks did not show.
        self.tokens = max(self.tokens, counted or 0)
        asked = self.row.request.dimensions
        if finish.refused:
            self.fail("content_filter" if "content_filter" in finish.refused else "upstream_error", finish.refused)
        elif asked not in (None, len(finish.embedding)):
            message = f"dimensions: the server gave {len(finish.embedding)} numbers in place of {asked}"
            self.fail("invalid_request", message)
        else:
            self._end(finish.reason, finish.usage, embedding=finish.embedding)

    def fail(self, kind: str, message: str) -> None:
        """The request was at fault."""
        self._end(FinishReason.ERROR, error=(kind, message))

    def interrupt(self, reason: FinishReason) -> None:
        """The row was cancelled, or its time is over: it ends with what it has."""
        self._fresh += self.stops.flush()
        self._end(reason)

    def event(self) -> Event | None:
        """What is new since the last step; None: nothing."""
        if not (self._fresh or self.tokens > self._told or self.end):
            return None
        text, ids, logprobs = self._fresh, tuple(range(self._told, self.tokens)), tuple(self._logprobs)
        self.text, self._fresh, self._told, self._logprobs = self.text + text, "", self.tokens, []
        return Event(self.row.id, text, ids, self.end, logprobs)

    def _end(
        self,
        reason: FinishReason,
        usage: Usage = _UNCOUNTED,
        error: tuple[str, str] | None = None,
        embedding: Sequence[float] = (),
    ) -> None:
        self.end = RowEnd(
            reason, self.text + self._fresh, usage.prompt_tokens, self.tokens, self.batch_size, error,
            usage.cached_tokens, embedding,
        )  # fmt: skip
