"""The engine of embeddings: each row takes one step, together with others of its length."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

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
from gpu_worker.engines.continuous.encoder.batches import WaitingRow, next_batch
from gpu_worker.engines.continuous.encoder.embedder import Embedder
from gpu_worker.engines.continuous.encoder.sizes import Sizes
from gpu_worker.engines.continuous.retry_halves import failure, run_in_halves
from promptq.contract.errors import EngineBroken, InvalidRequest
from promptq.contract.request import GenerateRequest

log = logging.getLogger(__name__)

# A row has nothing to go on with, and loses nothing when it is given up.
ABLE = Capabilities(text=False, embeddings=True, token_prompts=True, resume=True, preempt=True)
STEP_TOKENS = {"cpu": 512, "cuda": 16_384}
"""The most tokens of a step, unless the settings say it: between two steps rows are cancelled, and come in."""
NOT_FINITE = ("engine_error", "the model's output is not a finite number")


class EmbeddingEngine:
    """Embeds prompts with one model, whoever computes it. See `base.Engine` for the contract.

    Args:
        info: its slots are rows that are held at once, of which a step computes some.
        step_tokens: the most tokens of a step, padding included.
        prefix: what is put before every text.
        sizes: how many numbers a request may ask for.
    """

    def __init__(
        self,
        embedder: Embedder,
        tokenizer: PreTrainedTokenizerBase,
        info: EngineInfo,
        *,
        step_tokens: int,
        prefix: str,
        sizes: Sizes,
    ) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._info = info
        self._step_tokens = step_tokens
        self._prefix = prefix
        self._sizes = sizes
        self._live: dict[str, WaitingRow] = {}

    @property
    def info(self) -> EngineInfo:
        return self._info

    def free_slots(self) -> int:
        return self._info.slots - len(self._live)

    def live_rows(self) -> int:
        return len(self._live)

    def add(self, rows: Sequence[Row]) -> None:
        check_rows(rows, self.free_slots(), self._live.keys())
        for row in rows:
            self._live[row.id] = waiting = WaitingRow(row)
            try:
                waiting.ids = self._encode(row.request)
                self._check(row.request, waiting.ids)
            except Exception as error:
                waiting.ending = FinishReason.ERROR, failure(error)
            else:
                self._fit(waiting)

    def cancel(self, ids: Iterable[str]) -> None:
        for row_id in ids:
            if waiting := self._live.get(row_id):
                waiting.ending = waiting.ending or (FinishReason.CANCELLED, None)

    def preempt(self, ids: Iterable[str]) -> list[str]:
        gone = [row_id for row_id in ids if row_id in self._live and self._live[row_id].ending is None]
        for row_id in gone:
            del self._live[row_id]
        return gone

    def step(self, now: float) -> StepResult:
        events = [self._end(waiting, *waiting.ending) for waiting in self._ending_at(now) if waiting.ending]
        batch = next_batch(list(self._live.values()), self._step_tokens, pads=self._embedder.pads)
        for waiting in self._live.values():
            waiting.passed_over += 1
        started = time.perf_counter()
        done = self._run(batch)
        seconds = time.perf_counter() - started
        tokens = sum(len(waiting.ids) for waiting in batch)
        return StepResult([*events, *done], StepStats(prefill_tokens=tokens, prefill_seconds=seconds if batch else 0.0))

    def close(self) -> None:
        self._live.clear()
        self._embedder.close()

    def _encode(self, request: GenerateRequest) -> list[int]:
        if request.task != "embed":
            raise InvalidRequest("the model makes embeddings, and generates no text", param="task")
        if request.prompt_token_ids is not None:
            return list(request.prompt_token_ids)
        ids = list(self._tokenizer(self._prefix + (request.prompt or ""))["input_ids"])
        if not ids:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        return ids

    def _check(self, request: GenerateRequest, ids: Sequence[int]) -> None:
        self._sizes.check(request.dimensions)
        if max(ids) >= self._embedder.vocabulary:
            message = f"the model has no token {max(ids)}; its tokens are 0 to {self._embedder.vocabulary - 1}"
            raise InvalidRequest(f"prompt_token_ids: {message}", param="prompt_token_ids")

    def _fit(self, waiting: WaitingRow) -> None:
        tokens, context = len(waiting.ids), self._info.context_length
        if tokens > context:
            message = f"the prompt has {tokens} tokens and the context is {context}"
            waiting.ending = FinishReason.ERROR, ("prompt_too_long", message)

    def _ending_at(self, now: float) -> list[WaitingRow]:
        """Rows that end without a step."""
        for waiting in self._live.values():
            deadline = waiting.row.deadline
            if deadline is not None and deadline <= now:
                waiting.ending = waiting.ending or (FinishReason.TIMEOUT, None)
        return [waiting for waiting in self._live.values() if waiting.ending]

    def _run(self, batch: list[WaitingRow]) -> list[Event]:
        failed: list[tuple[WaitingRow, tuple[str, str]]] = []
        events: list[Event] = []

        def embed(rows: list[WaitingRow]) -> list[list[float]]:
            return self._embedder.embed([waiting.ids for waiting in rows])

        for rows, embeddings in run_in_halves(batch, embed, lambda *alone: failed.append(alone)):
            for waiting, embedding in zip(rows, embeddings, strict=True):
                waiting.batch_size = len(rows)
                if all(map(math.isfinite, embedding)):
                    cut = self._sizes.cut(embedding, waiting.row.request.dimensions)
                    events.append(self._end(waiting, FinishReason.STOP, embedding=cut))
                else:
                    failed.append((waiting, NOT_FINITE))
        if failed and (trouble := self._embedder.trouble()):
            raise EngineBroken(f"rows fail, and so does a prompt that is known: {trouble}")
        return events + [self._end(waiting, FinishReason.ERROR, error) for waiting, error in failed]

    def _end(
        self,
        waiting: WaitingRow,
        reason: FinishReason,
        error: tuple[str, str] | None = None,
        embedding: Sequence[float] = (),
    ) -> Event:
        del self._live[waiting.row.id]
        end = RowEnd(reason, "", len(waiting.ids), 0, waiting.batch_size, error, embedding=embedding)
        return Event(waiting.row.id, end=end)
