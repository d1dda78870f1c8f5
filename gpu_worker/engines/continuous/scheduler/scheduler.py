"""Who gets a slot, and whose prompt is computed next. Decides without torch, clock or I/O."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.drafts import DraftBudget
from gpu_worker.engines.continuous.scheduler.memory_limits import MemoryLimits
from gpu_worker.engines.continuous.scheduler.prefixes import Copy, Prefixes
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.queues import PRIORITIES

# A row that waited this many steps counts as one rank higher, and again after as many more: so
# a stream of urgent short prompts cannot hold back a patient one for ever.
AGEING_STEPS = 32


@dataclass(frozen=True, slots=True)
class Move:
    """A row that is to leave its slot for a vacant one."""

    sequence: SequenceState
    source: int
    target: int


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
    """Holds the live sequences in order of arrival, and hands out slots and prefill tokens.

    Args:
        slots: rows that fit.
        step_cost: how long steps take.
        reuse: whether a prompt's beginning may be copied from a slot that holds it.

    Attributes:
        drafts: how far rows guess ahead, while no prompt is computed.
        prefixes: what the slots hold.
        memory: how much a pass may have, once one was too large.
    """

    def __init__(self, slots: int, step_cost: StepCost, *, reuse: bool = True) -> None:
        self.slots = slots
        self.step_cost = step_cost
        self.drafts = DraftBudget(step_cost.free_tokens, step_cost.double_tokens)
        self.prefixes = Prefixes(reuse=reuse)
        self.memory = MemoryLimits()
        self.live: list[SequenceState] = []
        self._vacant = list(range(slots))

    def free_slots(self) -> int:
        """How many sequences may be added now."""
        return self.slots - len(self.live)

    def add(self, sequence: SequenceState) -> None:
        """Take a sequence in; it gets its slot with its first prompt tokens."""
        self.live.append(sequence)

    def remove(self, sequence: SequenceState) -> None:
        """Forget a sequence and free its slot."""
        self.live.remove(sequence)
        if sequence.slot is not None:
            heapq.heappush(self._vacant, sequence.slot)

    def plan_move(self) -> Move | None:
        """The row of the highest slot into the lowest vacant one, unless a row without a slot will fill that.

        Rows that lie close together are read in fewer calls, and nothing between them is read in vain. A row whose
        prompt is not computed stays: nobody knows yet whether the numbers in its slot are finite.
        """
        last = max(self.live, key=_slot, default=None)
        if last is None or not last.is_prefilled or not self._vacant or _slot(last) < self._vacant[0]:
            return None
        waits = any(sequence.slot is None for sequence in self.live)
        return None if waits else Move(last, _slot(last), self._vacant[0])

    def moved(self, move: Move) -> None:
        """The row's keys and values are in the other slot now."""
        move.sequence.slot = heapq.heapreplace(self._vacant, move.source)
        self.prefixes.hold(move.target, move.sequence)
        self.prefixes.forget(move.source)

    def note_batch(self) -> None:
        """Let every live sequence know how many share this step."""
        for sequence in self.live:
            sequence.batch_size = max(sequence.batch_size, len(self.live))

    def plan(self) -> Plan:
        """Choose this step's tokens."""
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
        room = min((sequence.limit - sequence.generated for sequence in running), default=0)
        count = self.drafts.each(len(running), room)
        guesses = {sequence: tuple(sequence.drafter.guess(count)) for sequence in running} if count else {}
        return {s: guess or (s.last,) * count for s, guess in guesses.items()} if any(guesses.values()) else {}

    def running(self) -> list[SequenceState]:
        """Sequences that decode, by slot."""
        ready = [sequence for sequence in self.live if sequence.is_prefilled]
        return sorted(ready, key=_slot)

    def plan_prefill(self, running: int = 0) -> Plan:
        """Choose this step's prompt tokens, beside so many running rows; the most urgent row first.

        A row whose turn comes gets the lowest vacant slot: decoding runs over the slots below the highest live one.
        What another slot holds of its prompt's beginning is copied.
        """
        waiting = self._waiting()
        budget = self._prefill_budget(running, len(waiting))
        plan = Plan([], [])
        for sequence in waiting:
            if budget == 0 or self._had_better_wait(sequence, plan.chunks):
                sequence.passed_over += 1
                continue
            if sequence.slot is None:
                plan.copies.extend(self._admit(sequence))
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

    def _admit(self, sequence: SequenceState) -> list[Copy]:
        """Give it a slot. Returns the copy of what another slot holds of its prompt's beginning, if there is one."""
        source, sequence.computed = self.prefixes.best(sequence.prompt)
        sequence.slot = heapq.heappop(self._vacant)
        sequence.reused = sequence.computed
        self.prefixes.hold(sequence.slot, sequence)
        is_elsewhere = sequence.computed and source != sequence.slot
        return [Copy(source, sequence.slot, sequence.computed)] if is_elsewhere else []


def _decode(sequence: SequenceState, drafts: tuple[int, ...]) -> Chunk:
    return Chunk(sequence, sequence.computed, sequence.computed + 1 + len(drafts), drafts)


def _slot(sequence: SequenceState) -> int:
    return -1 if sequence.slot is None else sequence.slot


def _urgency(sequence: SequenceState) -> tuple[int, float]:
    rank = PRIORITIES.index(sequence.row.priority)
    return rank - sequence.passed_over // AGEING_STEPS, sequence.row.queued_at
