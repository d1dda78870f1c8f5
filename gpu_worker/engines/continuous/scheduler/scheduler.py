"""Who gets memory, and whose prompt is computed next. Decides without torch, clock or I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.drafts import DraftBudget
from gpu_worker.engines.continuous.scheduler.memory_limits import MemoryLimits
from gpu_worker.engines.continuous.scheduler.prefixes import Copy, Prefixes, SpanPrefixes
from gpu_worker.engines.continuous.scheduler.room import Move, Room, SlotRoom, by_slot
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.continuous.scheduler.spans import Spans
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from gpu_worker.engines.kv_memory import KvTokens
from promptq.contract.queues import PRIORITIES

# A row that waited this many steps counts as one rank higher, and again after as many more: so
# a stream of urgent short prompts cannot hold back a patient one for ever.
AGEING_STEPS = 32
# For so many steps a row waits for others to leave, before rows are moved to make room for it: most often one does.
MOVING_STEPS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """One step.

    Attributes:
        chunks: the tokens to compute: one of each running row, by slot, then those of prompts.
        copies: to be made before, in this order.
    """

    chunks: list[Chunk]
    copies: list[Copy]


class Scheduler:
    """Holds the live sequences in order of arrival, and hands out memory and prefill tokens.

    Args:
        slots: the most rows at once.
        step_cost: how long steps take.
        room: their memory; None: a slot for each.
        reuse: whether a prompt's beginning may be copied from where it lies.

    Attributes:
        drafts: how far rows guess ahead, while no prompt is computed.
        prefixes: what the rows' memory holds.
        memory: how much a pass may have, once one was too large.
    """

    def __init__(self, slots: int, step_cost: StepCost, *, room: Room | None = None, reuse: bool = True) -> None:
        self.slots = slots
        self.step_cost = step_cost
        self.room = room or SlotRoom(slots, 1)
        self.drafts = DraftBudget(step_cost.free_tokens, step_cost.double_tokens)
        self.prefixes = SpanPrefixes(reuse=reuse) if isinstance(self.room, Spans) else Prefixes(reuse=reuse)
        self.memory = MemoryLimits()
        self.live: list[SequenceState] = []
        self._seen: set[SequenceState] = set()

    def free_slots(self) -> int:
        """How many sequences may be added now.

        None while one waits for room: more would wait behind it, and another worker may have room for them. Else as
        many as are likely to fit, but one at least: how long a row is shows only when it is here.
        """
        vacant = self.slots - len(self.live)
        coming = sum(row.most_tokens for row in self.live if row.slot is None and row.ending is None)
        fitting = self.room.rows_that_fit(coming)
        if fitting is None:
            return vacant
        return 0 if self.crowded_out else min(vacant, max(1, fitting))

    @property
    def crowded_out(self) -> list[SequenceState]:
        """The rows that found no room when their turn came, the most urgent first."""
        return [row for row in self._waiting() if row.is_crowded_out and row.ending is None]

    @property
    def kept_out(self) -> list[SequenceState]:
        """Those of them that have no room before others leave, however rows are moved."""
        return [row for row in self.crowded_out if not self.room.could_fit(self.live, row.most_tokens)]

    @property
    def planned_for(self) -> set[SequenceState]:
        """The rows that a plan made now might be about: not those that are kept out, while no row left or came."""
        live = set(self.live)
        return live.difference(self.kept_out) if live == self._seen else live

    @property
    def kv_tokens(self) -> KvTokens:
        """How full the rows' memory is."""
        used = sum(row.computed for row in self.live if row.slot is not None)
        return KvTokens(self.room.tokens, self.room.reserved, used)

    def add(self, sequence: SequenceState) -> None:
        """Take a sequence in; it gets its memory with its first prompt tokens."""
        self.live.append(sequence)
        if sequence.ending is None:
            self.room.note(sequence.most_tokens)

    def remove(self, sequence: SequenceState) -> None:
        """Forget a sequence and free its memory."""
        self.live.remove(sequence)
        if sequence.slot is not None:
            self.room.give_back(sequence.slot)

    def plan_moves(self) -> list[Move]:
        """Rows that are to move before the step, in this order. See `Room.moves`."""
        waiting = self.crowded_out
        wanted = waiting[0].most_tokens if waiting and waiting[0].passed_over >= MOVING_STEPS else 0
        return self.room.moves(self.live, wanted)

    def moved(self, move: Move) -> None:
        """The row's keys and values are at the target now."""
        self.room.moved(move)
        move.sequence.slot = move.target
        self.prefixes.forget(move.source)
        self.prefixes.hold(move.target, move.sequence)

    def note_batch(self) -> None:
        """Let every live sequence know how many share this step."""
        for sequence in self.live:
            sequence.batch_size = max(sequence.batch_size, len(self.live))

    def plan(self) -> Plan:
        """Choose this step's tokens."""
        self._seen = set(self.live)
        running = self.running()
        prefill = self.plan_prefill(len(running))
        guesses = {} if prefill.chunks else self._guesses(running)
        decoded = [_decode(sequence, guesses.get(sequence, ())) for sequence in running]
        return Plan(decoded + prefill.chunks, prefill.copies)

    def _guesses(self, running: list[SequenceState]) -> dict[SequenceState, tuple[int, ...]]:
        """Drafts for each running row, as many for all: attention takes them in one call then. None: nobody guesses.

        What may follow a draft is not known where a text must fit something.
        """
        if any(sequence.grammar for sequence in running):
            return {}
        count = self._drafts_each(running, sure=0)
        guesses = {sequence: tuple(sequence.drafter.guess(count)) for sequence in running} if count else {}
        if not any(guesses.values()):
            self._note_no_guess(count)
            return {}
        return {s: guess or (s.last,) * count for s, guess in guesses.items()}

    def _note_no_guess(self, count: int) -> None:
        """Where steps could have overlapped, having nothing to guess is as bad as a wrong guess."""
        if count and self.step_cost.overlap_gain > 1:
            self.drafts.note(False)

    def would_guess(self, chunks: Sequence[Chunk]) -> bool:
        """Whether rows would guess ahead in the step of these chunks, in which each has one token more than now."""
        return self._drafts_each([chunk.sequence for chunk in chunks], sure=1) > 0

    def _drafts_each(self, rows: Sequence[SequenceState], sure: int) -> int:
        """How many tokens each of the rows may guess, behind so many that are chosen by then."""
        room = min((row.limit - row.generated - sure for row in rows), default=0)
        least_gain = self.step_cost.overlap_gain if all(row.is_plain for row in rows) else 1.0
        return self.drafts.each(len(rows), room, least_gain)

    def running(self) -> list[SequenceState]:
        """Sequences that decode, by slot."""
        ready = [sequence for sequence in self.live if sequence.is_prefilled]
        return sorted(ready, key=by_slot)

    def plan_prefill(self, running: int = 0) -> Plan:
        """Choose this step's prompt tokens, beside so many running rows; the most urgent row first.

        A row whose turn comes gets its memory, and what lies elsewhere of its prompt's beginning is copied. One that
        finds no room is passed by others for a while only: once it has waited long, or moves will make room for it,
        those behind it wait too, so that many short rows cannot keep a long one out for ever.
        """
        waiting = self._waiting()
        budget = self._prefill_budget(running, len(waiting))
        plan, is_shut = Plan([], []), False
        for sequence in waiting:
            if budget == 0 or self._had_better_wait(sequence, plan.chunks):
                sequence.passed_over += 1
                continue
            sequence.is_crowded_out = sequence.slot is None and (is_shut or not self._admit(sequence, plan))
            if sequence.is_crowded_out:
                sequence.passed_over += 1
                is_shut = is_shut or self._is_next(sequence)
                continue
            stop = min(len(sequence.prompt), sequence.computed + budget)
            plan.chunks.append(Chunk(sequence, sequence.computed, stop))
            budget -= stop - sequence.computed
        return plan

    def _prefill_budget(self, running: int, waiting: int) -> int:
        """Prompt tokens of this step. What fills its last bucket is added: it would be computed as padding."""
        step_cost = self.step_cost
        most = min(step_cost.prefill_tokens, self.memory.prompts.most or step_cost.prefill_tokens)
        if step_cost.beside is None or waiting > running:
            return most
        return min(most, round_up(step_cost.beside + 2 * running, step_cost.bucket) - running)

    def _waiting(self) -> list[SequenceState]:
        # sorted() is stable: among equals the order of arrival stands.
        waiting = (sequence for sequence in self.live if not (sequence.is_prefilled or sequence.is_held))
        return sorted(waiting, key=_urgency)

    def _had_better_wait(self, sequence: SequenceState, chunks: list[Chunk]) -> bool:
        """Whether rows whose turn it is compute at least half of what this one, which has not begun, lacks."""
        if sequence.slot is not None or not chunks:
            return False
        coming = self.prefixes.coming(sequence.prompt, chunks)
        if not coming:
            return False
        _, held = self.prefixes.best(sequence.prompt)
        return 2 * (coming - held) >= len(sequence.prompt) - held

    def _admit(self, sequence: SequenceState, plan: Plan) -> bool:
        """Give it memory, and plan the copy of what lies elsewhere of its prompt's beginning; whether there is room."""
        source, shared = self.prefixes.best(sequence.prompt)
        sequence.slot = self.room.take(sequence.most_tokens, source)
        if sequence.slot is None:
            return False
        sequence.computed = sequence.reused = shared
        self.prefixes.hold(sequence.slot, sequence)
        if shared and source != sequence.slot:
            plan.copies.append(Copy(source, sequence.slot, shared))
        return True

    def _is_next(self, sequence: SequenceState) -> bool:
        """Whether what becomes free is kept for this row, which found no room."""
        if sequence.passed_over >= AGEING_STEPS:
            return True
        return sequence.passed_over >= MOVING_STEPS and self.room.could_fit(self.live, sequence.most_tokens)


def _decode(sequence: SequenceState, drafts: tuple[int, ...]) -> Chunk:
    return Chunk(sequence, sequence.computed, sequence.computed + 1 + len(drafts), drafts)


def _urgency(sequence: SequenceState) -> tuple[int, float]:
    rank = PRIORITIES.index(sequence.row.priority)
    return rank - sequence.passed_over // AGEING_STEPS, sequence.row.queued_at
