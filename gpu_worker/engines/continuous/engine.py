"""The continuous batching engine: torch and transformers on one device, rows joining and leaving at every step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpu_worker.engines.base import EngineInfo, FinishReason, Row, RowEnd, StepResult, check_rows
from gpu_worker.engines.continuous.canary import Canary
from gpu_worker.engines.continuous.device_errors import ends_with_the_device
from gpu_worker.engines.continuous.generation_config import GenerationRules
from gpu_worker.engines.continuous.grammar import Grammar, Grammars, wait_for_one
from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.kvcache.memory import KvMemory, Layout, room_of
from gpu_worker.engines.continuous.logprobs import Chosen, Score, TokenTexts
from gpu_worker.engines.continuous.lookahead import Lookahead, Step, planned
from gpu_worker.engines.continuous.retry_halves import row_failure
from gpu_worker.engines.continuous.row_starts import RowStarts
from gpu_worker.engines.continuous.runners.checks import Checks
from gpu_worker.engines.continuous.runners.choice import choose_runner, lay_out
from gpu_worker.engines.continuous.runners.layer_shapes import layer_shapes
from gpu_worker.engines.continuous.sampling import NOT_FINITE
from gpu_worker.engines.continuous.scheduler.drafts import confirmed
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, Failure, SequenceState
from gpu_worker.engines.continuous.step_passes import StepPasses
from gpu_worker.engines.continuous.step_report import RowReport, describe, step_stats
from gpu_worker.engines.continuous.text.decoding import decode_of
from gpu_worker.engines.continuous.text.prompts import PromptEncoder, tokenizer_json
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from gpu_worker.engines.continuous.text.text_stream import TextStream
from gpu_worker.engines.continuous.vocabulary import Vocabulary
from promptq.contract.errors import EngineBroken

log = logging.getLogger(__name__)

COMPILE_SECONDS = 0.005
"""How long an engine without anything else to do waits for a schema, before it looks for cancels and new rows."""


class ContinuousEngine:
    """Generates with any decoder-only model of transformers. See `base.Engine` for the contract.

    Args:
        model: on its device, in its number format.
        context: the most tokens of a row, prompt and text.
        name: what `info` shows as the model.
        fingerprint: of the model's files; see `loading.fingerprint`.
        packed: False runs every model through transformers' own code, as those are that PackedModel does not know.
        graphs: whether steps of fixed shapes run as CUDA graphs; None: where they serve. See `choose_runner`.
        drafts: whether few rows guess ahead; only where the runner takes drafts.
        prefixes: whether a prompt's beginning is copied from a slot that holds it.
        kernels: our own for a CPU, for models that the packed runner knows; None: torch's operators alone.
        checks_folder: where it is kept that a model was compared with `generate`; None: nowhere.
        layout: of the rows' memory; see `KvMemory`.

    Raises:
        EngineError: the model cannot be batched, gives other logits in company than alone, has a generation config that
            cannot be followed, or its rows do not fit into the device's memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        slots: int,
        context: int,
        prefill_tokens: int = 0,
        name: str = "",
        fingerprint: str = "",
        packed: bool = True,
        graphs: bool | None = None,
        drafts: bool = True,
        prefixes: bool = True,
        kernels: Kernels | None = None,
        checks_folder: Path | None = None,
        layout: Layout = "auto",
    ) -> None:
        rules = GenerationRules(model, tokenizer)
        shapes = layer_shapes(model, context)
        weights = lay_out(model, shapes, packed=packed, kernels=kernels)
        memory = KvMemory(shapes, slots, context, model.device, layout)
        checks = Checks(model, context, fingerprint, checks_folder)
        self._runner = choose_runner(
            model, memory, checks, weights=weights, packed=packed, kernels=kernels, graphs=graphs
        )
        cache, cost = self._runner.cache, self._runner.step_cost.limited(prefill_tokens, drafts=drafts)
        self._scheduler = Scheduler(cache.slots, cost, room=room_of(cache), reuse=prefixes)
        self._lookahead = Lookahead(self._runner, self._scheduler)
        self._canary = Canary(model)
        special = SpecialTokens.of(tokenizer)
        vocabulary = Vocabulary(tokenizer, self._canary.vocabulary, rules.ends)
        self._grammars = Grammars(vocabulary)
        prompts = PromptEncoder(tokenizer, special)
        self._starts = RowStarts(context, rules, special, prompts, self._grammars, *self._canary.sizes)
        self._token_texts = TokenTexts(vocabulary)
        self._skipped = frozenset(special.ids.values())
        self._decode = decode_of(tokenizer)
        counted, tools = tokenizer_json(tokenizer), prompts.knows_tools
        self._info = describe(model, self._runner, name, context, counted, fingerprint, tools=tools)
        self._texts: dict[str, TextStream] = {}
        self._reports: dict[str, RowReport] = {}
        self._right_drafts = 0
        self._is_in_doubt = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    def free_slots(self) -> int:
        return self._scheduler.free_slots()

    def live_rows(self) -> int:
        return len(self._scheduler.live)

    def crowded_out(self) -> list[str]:
        return [row.row.id for row in self._scheduler.kept_out]

    @ends_with_the_device
    def add(self, rows: Sequence[Row]) -> None:
        check_rows(rows, self.free_slots(), self._texts.keys())
        for row in rows:
            sequence = self._starts.sequence(row)
            stops = [*row.request.stop, *self._starts.stops]
            self._texts[row.id] = TextStream(self._decode, self._skipped, stops, sequence.prompt)
            self._resume(sequence)
            self._scheduler.add(sequence)

    def cancel(self, ids: Iterable[str]) -> None:
        wanted = set(ids)
        for sequence in self._scheduler.live:
            if sequence.row.id in wanted:
                sequence.end(FinishReason.CANCELLED)

    @ends_with_the_device
    def preempt(self, ids: Iterable[str]) -> list[str]:
        wanted = set(ids)
        gone = [row for row in self._scheduler.live if row.row.id in wanted and row.ending is None]
        for sequence in gone:
            del self._texts[sequence.row.id]
            self._vacate(sequence, sound=sequence.is_prefilled)
        return [sequence.row.id for sequence in gone]

    @ends_with_the_device
    def step(self, now: float) -> StepResult:
        self._reports, self._right_drafts = {}, 0
        self._end_rows(now)
        step = self._lookahead.next() or self._plan()
        self._lookahead.submit_behind(step)
        passes = self._run(step)
        stats = step_stats(passes, self._right_drafts, time.perf_counter() - step.began, self._scheduler.kv_tokens)
        return StepResult([report.event(row_id) for row_id, report in self._reports.items()], stats)

    def close(self) -> None:
        self._grammars.close()

    def _resume(self, sequence: SequenceState) -> None:
        """Go on where an earlier run stopped. It may have come to the end of the text, and not to storing that."""
        stream, tokens = self._texts[sequence.row.id], sequence.row.progress
        try:
            for token in tokens:
                stream.push(token)
        except Exception as error:
            sequence.end(FinishReason.ERROR, row_failure(error))
        sequence.resume(tokens)
        if stream.stopped:
            sequence.end(FinishReason.STOP)
        elif tokens and sequence.generated >= sequence.limit:
            sequence.end(FinishReason.LENGTH)

    def _end_rows(self, now: float) -> None:
        for sequence in list(self._scheduler.live):
            deadline = sequence.row.deadline
            if deadline is not None and deadline <= now:
                sequence.end(FinishReason.TIMEOUT)
            if sequence.ending is not None:
                self._guarded(sequence, self._finish, *sequence.ending)

    def _plan(self) -> Step:
        self._scheduler.note_batch()
        self._begin_grammars()
        return planned(self._scheduler, self._runner.cache)

    def _begin_grammars(self) -> None:
        """Let rows begin whose schemas are compiled by now. Where nobody else runs, that is waited for a little."""
        held = [(row, row.grammar) for row in self._scheduler.live if row.grammar and row.is_held]
        if held and len(held) == len(self._scheduler.live):
            wait_for_one((grammar for _, grammar in held), COMPILE_SECONDS)
        for sequence, grammar in held:
            if grammar.compiled.done():
                self._guarded(sequence, self._begin_grammar, grammar)

    def _begin_grammar(self, sequence: SequenceState, grammar: Grammar) -> None:
        grammar.begin(sequence.row.progress)
        if grammar.is_whole:
            self._finish(sequence, FinishReason.STOP)

    def _run(self, step: Step) -> StepPasses[Chosen]:
        passes = StepPasses(self._lookahead.reader(step), self._scheduler.memory)
        live, self._is_in_doubt = set(self._scheduler.live), False
        for done, chosen in passes.run(step.chunks):
            positions = count()
            for chunk in done:
                places = list(islice(positions, chunk.gives))
                if chunk.sequence in live:  # else it has left since the step was submitted
                    self._take(chunk, [chosen.tokens[at] for at in places], [chosen.scores.get(at) for at in places])
        if (passes.failed or self._is_in_doubt) and (trouble := self._canary.trouble()):
            raise EngineBroken(f"rows fail, and so does a prompt of one token: {trouble}")
        for chunk, reason in passes.failed:
            if chunk.sequence in live:
                self._fail(chunk.sequence, reason)
        return passes

    def _take(self, chunk: Chunk, tokens: list[int], scores: list[Score | None]) -> None:
        sequence, standing = chunk.sequence, confirmed(chunk.drafts, tokens)
        sequence.computed = chunk.stop - len(tokens) + len(standing)
        if chunk.drafts:
            self._right_drafts += len(standing) - 1
            self._scheduler.drafts.note(len(standing) > 1)
        # A number that is not finite, behind a wrong guess too, is in the slot and would be read there.
        for token, score in zip([NOT_FINITE] if NOT_FINITE in tokens else standing, scores, strict=False):
            if sequence.row.id in self._texts:
                self._guarded(sequence, self._take_token, token, score)

    def _guarded(self, sequence: SequenceState, act: Callable[..., None], *args: Any) -> None:
        """Do something to one row; if that raises, it is this row that fails."""
        try:
            act(sequence, *args)
        except Exception as error:
            log.exception("row %s failed", sequence.row.id)
            self._fail(sequence, row_failure(error))

    def _take_token(self, sequence: SequenceState, token: int, score: Score | None) -> None:
        if token == NOT_FINITE:
            self._is_in_doubt = True
            self._fail(sequence, ("engine_error", "the model's output is not a finite number"))
        elif token in sequence.ends:
            self._finish(sequence, FinishReason.STOP)
        elif wrong := self._starts.unknown([token]):
            self._fail(sequence, ("engine_error", f"of what it chose {wrong}"))
        else:
            self._append(sequence, token, score)

    def _append(self, sequence: SequenceState, token: int, score: Score | None) -> None:
        stream, report = self._texts[sequence.row.id], self._report(sequence)
        sequence.append(token)
        report.tokens.append(token)
        if score:
            report.logprobs.append(self._token_texts.describe(token, score))
        report.text += stream.push(token)
        if stream.stopped or self._is_whole(sequence, token):
            self._finish(sequence, FinishReason.STOP)
        elif sequence.generated >= sequence.limit:
            self._finish(sequence, FinishReason.LENGTH)

    def _is_whole(self, sequence: SequenceState, token: int) -> bool:
        """Tell what the text must fit of its next token; whether the text is whole, and no token is there to say so."""
        if sequence.grammar is None:
            return False
        sequence.grammar.accept(token)
        return sequence.grammar.is_whole

    def _fail(self, sequence: SequenceState, failure: Failure) -> None:
        self._finish(sequence, FinishReason.ERROR, failure)

    def _finish(self, sequence: SequenceState, reason: FinishReason, error: Failure | None = None) -> None:
        stream, report = self._texts[sequence.row.id], self._report(sequence)
        # After an error the decoder itself may be the one at fault.
        report.text += stream.flush() if error is None else ""
        report.end = RowEnd(
            reason,
            stream.text,
            sequence.prompt_tokens,
            sequence.generated,
            sequence.batch_size,
            error,
            min(sequence.reused, sequence.prompt_tokens),
        )
        del self._texts[sequence.row.id]
        self._vacate(sequence, sound=error is None and sequence.is_prefilled)

    def _vacate(self, sequence: SequenceState, *, sound: bool) -> None:
        """Free the row's memory. Before its first token nobody knows whether the numbers in it are finite."""
        if sequence.grammar:
            sequence.grammar.cancel()
        if sequence.slot is not None and not sound:
            self._runner.cache.clear(sequence.slot, sequence.most_tokens)
            self._scheduler.prefixes.forget(sequence.slot)
        self._scheduler.remove(sequence)

    def _report(self, sequence: SequenceState) -> RowReport:
        return self._reports.setdefault(sequence.row.id, RowReport())
