"""vLLM behind the engine protocol: rows become its requests, its tokens become their texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpu_worker.engines.base import EngineInfo, FinishReason, Row, StepResult, StepStats, check_rows
from gpu_worker.engines.continuous.grammar import wait_for_one
from gpu_worker.engines.continuous.logprobs import TokenTexts
from gpu_worker.engines.continuous.retry_halves import failure
from gpu_worker.engines.continuous.row_starts import RowStarts
from gpu_worker.engines.continuous.text.decoding import decode_of
from gpu_worker.engines.continuous.text.prompts import PromptEncoder
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from gpu_worker.engines.continuous.text.text_stream import TextStream
from gpu_worker.engines.vllm.adapters import Adapters
from gpu_worker.engines.vllm.core import close, step
from gpu_worker.engines.vllm.logprobs import describe_all
from gpu_worker.engines.vllm.model_rules import ModelRules
from gpu_worker.engines.vllm.row_parameters import grammars_of, sampling_parameters
from gpu_worker.engines.vllm.rows import FAILED, VllmRow

log = logging.getLogger(__name__)

COMPILE_SECONDS = 0.005
"""How long an engine without anything else to do waits for a schema, before it looks for cancels and new rows."""


class VllmEngine:
    """Generates with vLLM. See `base.Engine` for the contract.

    vLLM computes and batches. Prompts, texts, stops and ends are ours, so they are the same in every engine; how tokens
    are chosen see `choices`.

    Args:
        core: vLLM's LLMEngine, its core in this process.
        rules: what the model asks for in all texts.
        adapters: by name.
    """

    def __init__(
        self, core: Any, tokenizer: PreTrainedTokenizerBase, info: EngineInfo, rules: ModelRules, adapters: Adapters
    ) -> None:
        self._core = core
        self._info = info
        self._rules = rules
        self._adapters = adapters
        self._grammars = grammars_of(core.vllm_config)
        vocabulary = int(core.vllm_config.model_config.get_vocab_size())
        special = SpecialTokens.of(tokenizer)
        prompts = PromptEncoder(tokenizer, special)
        self._starts = RowStarts(info.context_length, rules, special, prompts, self._grammars, vocabulary, vocabulary)
        self._token_texts = TokenTexts(self._grammars.vocabulary)
        self._skipped = frozenset(special.ids.values())
        self._decode = decode_of(tokenizer)
        self._rows: dict[str, VllmRow] = {}
        self._is_open = True

    @property
    def info(self) -> EngineInfo:
        return self._info

    def free_slots(self) -> int:
        return self._info.slots - len(self._rows)

    def live_rows(self) -> int:
        return len(self._rows)

    def add(self, rows: Sequence[Row]) -> None:
        check_rows(rows, self.free_slots(), self._rows.keys())
        self._rows |= {row.id: self._row(row) for row in rows}

    def cancel(self, ids: Iterable[str]) -> None:
        for id in self._rows.keys() & set(ids):
            self._rows[id].sequence.end(FinishReason.CANCELLED)

    def preempt(self, ids: Iterable[str]) -> list[str]:
        gone = [id for id in ids if id in self._rows and self._rows[id].sequence.ending is None]
        for id in gone:
            self._let_go(self._rows.pop(id))
        return gone

    def step(self, now: float) -> StepResult:
        live = list(self._rows.values())
        for row in live:
            self._end_if_due(row, now)
        started = time.perf_counter()
        self._submit([row for row in live if not (row.is_running or row.ended)])
        self._let_ended_go()
        outputs = self._step_core() if any(row.is_running for row in self._rows.values()) else []
        stats = self._take(outputs, started)
        self._let_ended_go()
        return StepResult([event for row in live if (event := row.event())], stats)

    def close(self) -> None:
        if self._is_open:
            close(self._core)
        self._is_open = False
        self._rows.clear()

    def _row(self, row: Row) -> VllmRow:
        """As it begins. Where its request is at fault, it ends with that at the next step."""
        wanted = self._rules.with_own(row.request)
        sequence = self._starts.sequence(replace(row, request=wanted))
        stops = [*row.request.stop, *self._starts.stops]
        state = VllmRow(sequence, TextStream(self._decode, self._skipped, stops, sequence.prompt))
        self._guarded(state, lambda: self._prepare(state))
        return state

    def _prepare(self, row: VllmRow) -> None:
        row.adapter = self._adapters.request(row.sequence.row.request.adapter)
        row.resume()

    def _guarded(self, row: VllmRow, act: Callable[[], object]) -> None:
        """Do something for one row; if that raises, it is this row that fails at the next step."""
        try:
            act()
        except Exception as error:
            row.sequence.end(FinishReason.ERROR, failure(error))

    def _end_if_due(self, row: VllmRow, now: float) -> None:
        if row.sequence.row.deadline is not None and row.sequence.row.deadline <= now:
            row.sequence.end(FinishReason.TIMEOUT)
        if row.sequence.ending is not None:
            row.finish(*row.sequence.ending)

    def _submit(self, rows: list[VllmRow]) -> None:
        """Give vLLM what it may begin with: a row with a schema once that is compiled.

        Where nobody runs, that is waited for a little.
        """
        held = [row.sequence.grammar for row in rows if row.sequence.grammar]
        if held and not any(row.is_running or row.ended for row in self._rows.values()):
            wait_for_one(held, COMPILE_SECONDS)
        for row in rows:
            grammar = row.sequence.grammar
            if grammar is None or grammar.compiled.done():
                self._begin(row)

    def _begin(self, row: VllmRow) -> None:
        self._guarded(row, lambda: self._request(row))
        if row.sequence.ending is not None:
            row.finish(*row.sequence.ending)

    def _request(self, row: VllmRow) -> None:
        sequence, grammar = row.sequence, row.sequence.grammar
        if grammar:
            grammar.begin(sequence.row.progress)
            if grammar.is_whole:
                return sequence.end(FinishReason.STOP)
        prompt = {"type": "token", "prompt_token_ids": list(sequence.prompt)}
        where = {"arrival_time": sequence.row.queued_at, "priority": row.urgency, "lora_request": row.adapter}
        self._core.add_request(row.id, prompt, sampling_parameters(sequence), **where)
        row.is_running = True
        return None

    def _step_core(self) -> list[Any]:
        live = len(self._rows)
        for row in self._rows.values():
            row.sequence.batch_size = max(row.sequence.batch_size, live)
        return step(self._core)

    def _take(self, outputs: Iterable[Any], started: float) -> StepStats:
        decoded = computed = reused = 0
        for output in outputs:
            if (row := self._rows.get(output.request_id)) is None or row.ended:
                continue
            is_first, row.has_token = not row.has_token, True
            decoded += not is_first
            if is_first:
                row.sequence.reused = output.num_cached_tokens or 0
                reused += row.sequence.reused
                computed += len(output.prompt_token_ids) - row.sequence.reused
            self._take_output(row, output)
        seconds = time.perf_counter() - started
        return StepStats(decoded, computed, reused, seconds if computed else 0.0, seconds if decoded else 0.0)

    def _take_output(self, row: VllmRow, output: Any) -> None:
        """Take a row's new tokens; if that raises, it is this row that fails."""
        completion = output.outputs[0]
        try:
            row.take(completion.token_ids, describe_all(self._token_texts, row.sequence.row.request, completion))
        except Exception as error:
            log.exception("row %s failed", row.id)
            row.finish(FinishReason.ERROR, failure(error))
        if output.finished:
            row.is_running = False
            if not row.ended:
                row.finish(FinishReason.ERROR, FAILED)

    def _let_ended_go(self) -> None:
        for row in [row for row in self._rows.values() if row.ended]:
            self._let_go(self._rows.pop(row.id))

    def _let_go(self, row: VllmRow) -> None:
        if row.sequence.grammar:
            row.sequence.grammar.cancel()
        if row.is_running:
            self._core.abort_request([row.id])
