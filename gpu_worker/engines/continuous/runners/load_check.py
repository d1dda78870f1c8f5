"""Compares a runner with `model.generate` when a model is loaded. What a runner assumes of a class is seldom written
down in the class, and a wrong assumption gives wrong text without any error.

Three rows of different lengths go through the runner together, in each kind of step there is: a prompt in chunks,
beside a whole one and beside a running row, then all rows running, with drafts where the runner takes them, with a free
slot between them and beside a row as long as one may be. `generate` computes each row alone. Both are given the same
tokens, and only the logits are compared: a near tie between two tokens is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.kvcache.base import KvCache
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest

# Prompt tokens of the rows. The longest is longer than a bucket of columns, so that the others read beyond their own.
LENGTHS = (72, 19, 5)
# Beyond windows of more tokens the prompts would take long on a CPU, and the masks are the same.
MOST_WINDOW = 640
# The slot of each, and of one that is as long as a row may be; the one between is free.
SLOTS = (0, 1, 3, 4)
# Tokens that each row generates.
NEW = 4
# Most that a row's logits may differ by, as a share of how far they lie apart from one another. Between two orders of
# the same sums 16-bit formats differ by nearly as much, so there only a fault that is larger than that is found.
TOLERANCE = {torch.float32: 3e-4, torch.float16: 0.04, torch.bfloat16: 0.25}
# Logits of this size stand for tokens that the model rules out.
HUGE = 1e6
# Other tokens, in case that rounding alone sent a token to another expert, which is no fault but looks like one.
SEEDS = (1, 2)


def difference(model: PreTrainedModel, runner: Runner, context: int) -> str | None:
    """What the runner computes otherwise than `generate`, in a few words; None: nothing.

    The rows lie in the runner's own slots, which are free when a model is loaded, and leave nothing there that is read.

    Args:
        context: the most tokens of a row.
    """
    found = None
    for seed in SEEDS:
        rows = _rows(model, _longest(runner.cache, context), seed)[: max(1, len(checked_slots(runner.cache)) - 1)]
        # Alone first: where transformers' own code cannot compute the model, our kernels would read what is not there.
        alone = [_generated(model, row) for row in rows]
        found = _first_difference(rows, alone, _Batch(runner, rows, context).run(), TOLERANCE[model.dtype])
        if found is None:
            break
    return found


def checked_slots(cache: KvCache) -> Sequence[int]:
    """The slots that the comparison writes to: one of each row, and last that of the longest."""
    slots = cache.whole_rows()
    return [slots[index] for index in SLOTS] if len(slots) > max(SLOTS) else slots


@dataclass(frozen=True, slots=True)
class _Row:
    """One row, all its tokens known: those of the prompt, and those that follow, whatever the model thinks of them."""

    prompt: list[int]
    text: list[int]


def _longest(cache: KvCache, context: int) -> int:
    """Prompt tokens of the longest row: more than a window has, so that its beginning is out of sight."""
    windows = [shape.window for shape in cache.shapes if shape.window and shape.window <= MOST_WINDOW]
    return max(2, min(max([LENGTHS[0], *(window + NEW for window in windows)]), context - NEW))


def _rows(model: PreTrainedModel, longest: int, seed: int) -> list[_Row]:
    lengths = [max(1, length * longest // LENGTHS[0]) for length in LENGTHS]
    tokens = _tokens(model, sum(lengths) + NEW * len(lengths), seed)
    rows = []
    for length in lengths:
        rows.append(_Row(tokens[:length], tokens[length : length + NEW]))
        del tokens[: length + NEW]
    return rows


def _tokens(model: Any, count: int, seed: int) -> list[int]:
    """Any tokens of the vocabulary, but none that ends a text."""
    config = model.generation_config
    eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    size = model.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(size, (2 * count + 64,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [token for token in drawn if token not in eos][:count]


class _Forced(LogitsProcessor):
    """Lets `generate` choose the tokens that are given."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._row.text[input_ids.shape[1] - len(self._row.prompt)]] = 0
        return forced


@torch.inference_mode()
def _generated(model: Any, row: _Row) -> Tensor:
    """The logits of each token of the text, [NEW, vocabulary], the row alone."""
    ids = torch.tensor([row.prompt], device=model.device)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, num_beams=1, pad_token_id=0,
        cache_implementation=None, stop_strings=None, min_new_tokens=0, max_time=None, num_return_sequences=1,
        logits_processor=LogitsProcessorList([_Forced(row)]), return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.cat(out.logits)


class _Batch:
    """Rows that go through a runner together, in slots of its cache.

    One more is as long as a row may be, and counts for what it does to the others: they read as far as it reaches, and
    some models look for the longest position of a step. Its earlier tokens are zeros.
    """

    def __init__(self, runner: Runner, rows: Sequence[_Row], context: int) -> None:
        self._runner = runner
        slots = checked_slots(runner.cache)
        self._rows = [_BatchRow(row, slot) for row, slot in zip(rows, slots[:-1] or slots, strict=True)]
        longest = _Row([0] * max(1, context - 2), [0])
        self._longest = [_BatchRow(longest, slots[-1])] if len(slots) > 1 else []

    def run(self) -> list[Tensor]:
        """The logits of each row's text, [NEW, vocabulary]."""
        long, short, last = self._rows[0], self._rows[1:2], self._rows[2:]
        half = len(long.row.prompt) // 2
        self._step([], [(long, long.chunk(0, half)), *((row, row.chunk(0)) for row in short)])
        self._step(short, [(long, long.chunk(half)), *((row, row.chunk(0)) for row in last)])
        while running := [row for row in self._rows if row.missing]:
            self._step(running, [], drafts=int(self._runner.step_cost.free_tokens > 0))
        return [torch.cat(row.logits) for row in self._rows]

    def _step(self, running: list[_BatchRow], prompts: list[tuple[_BatchRow, Chunk]], drafts: int = 0) -> None:
        decoding = [(row, row.next(drafts)) for row in running]
        if running:
            decoding += [(row, row.following(1, ())) for row in self._longest]
        rows, chunks = zip(*decoding, *prompts, strict=True)
        logits, gives = self._runner.logits(chunks), [chunk.gives for chunk in chunks]
        if len(logits) != sum(gives):
            raise ValueError("it does not keep to logits_to_keep")
        for row, given in zip(rows, torch.split(logits, gives), strict=True):
            row.logits.append(given)


class _BatchRow:
    """A row on its way through a runner.

    Attributes:
        logits: what the runner gave so far.
    """

    def __init__(self, row: _Row, slot: int) -> None:
        self.row = row
        self.logits: list[Tensor] = []
        self._state = SequenceState(Row("", GenerateRequest(prompt="-")), row.prompt, NEW, slot=slot)

    @property
    def missing(self) -> int:
        """How many tokens' logits are still to come."""
        return NEW - sum(map(len, self.logits))

    def chunk(self, start: int, stop: int | None = None) -> Chunk:
        """A part of the prompt, up to its end if no other is given."""
        return Chunk(self._state, start, stop or len(self.row.prompt))

    def next(self, drafts: int) -> Chunk:
        """The next token of the text, and so many more as drafts if the text has them."""
        done = NEW - self.missing
        return self.following(done, self.row.text[done : min(done + drafts, NEW - 1)])

    def following(self, done: int, drafts: Sequence[int]) -> Chunk:
        """The newest of so many tokens of the text, and these drafts behind it."""
        self._state.last = self.row.text[done - 1]
        start = len(self.row.prompt) + done - 1
        return Chunk(self._state, start, start + 1 + len(drafts), tuple(drafts))


def _first_difference(
    rows: Sequence[_Row], wanted: Sequence[Tensor], given: Sequence[Tensor], tolerance: float
) -> str | None:
    for row, alone, beside in zip(rows, wanted, given, strict=True):
        apart = _apart(alone.float(), beside.float())
        if not apart <= tolerance:
            return (
                f"beside other rows the logits behind a prompt of {len(row.prompt)} tokens are {apart:.2g} of their "
                "spread away from those of model.generate"
            )
    return None


def _apart(alone: Tensor, beside: Tensor) -> float:
    """How far two texts' logits [tokens, vocabulary] lie apart, as a share of the spread of the first; the mean over
    the tokens. What the model rules out with huge numbers does not count.
    """
    ruled_out = alone.abs() >= HUGE
    off = (beside - alone).masked_fill(ruled_out, 0).norm(dim=-1)
    mean = alone.masked_fill(ruled_out, 0).sum(-1, keepdim=True) / (~ruled_out).sum(-1, keepdim=True)
    spread = (alone - mean).masked_fill(ruled_out, 0).norm(dim=-1)
    return float((off / spread.clamp(min=torch.finfo(spread.dtype).tiny)).mean())
