"""Steps that the memory is too short for: what is tried next, and when more is tried again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.scheduler.memory_limits import (
    CALM_STEPS,
    LEAST_PROMPT_TOKENS,
    Limit,
    MemoryLimits,
    shorter,
)
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from gpu_worker.engines.continuous.step_passes import StepPasses
from promptq.contract.request import GenerateRequest


def prompt(tokens: int) -> Chunk:
    return Chunk(SequenceState(Row("p", GenerateRequest(prompt="-")), [1] * tokens, 9, slot=0), 0, tokens)


def running(drafts: int = 0) -> Chunk:
    sequence = SequenceState(Row("r", GenerateRequest(prompt="-")), [1], 9, slot=0, computed=1)
    return Chunk(sequence, 1, 2 + drafts, (1,) * drafts)


def sizes(chunks: list[Chunk]) -> list[int]:
    return [chunk.stop - chunk.start for chunk in chunks]


def test_a_limit_falls_to_half_and_rises_slowly_until_it_permits_what_failed() -> None:
    limit = Limit(16)
    limit.lower(100)
    seen = [limit.most]
    while limit.most is not None:
        limit.note_step()
        if limit.most != seen[-1]:
            seen.append(limit.most)
    assert seen == [50, 56, 63, 70, 78, 87, 97, None]


def test_a_failure_in_between_begins_the_waiting_anew_and_never_raises() -> None:
    limit = Limit(16)
    limit.lower(100)
    for _ in range(CALM_STEPS - 1):
        limit.note_step()
    limit.lower(1000)
    limit.note_step()
    assert limit.most == 50
    limit.lower(20)
    assert limit.most == 16


def test_prompts_give_way_before_rows_that_run() -> None:
    limits = MemoryLimits()
    together = [running(), running(), prompt(100)]
    assert "at most 50 prompt tokens" in limits.too_large(together)
    assert (limits.running.most, limits.prompts.most) == (None, 50)
    assert "at most 2 tokens of running rows" in limits.too_large([running(1), running(1), prompt(4)])
    assert (limits.running.most, limits.prompts.most) == (2, 50)


def test_passes_keep_to_the_limits_and_the_order() -> None:
    limits = MemoryLimits()
    chunks = [running() for _ in range(5)] + [prompt(30), prompt(30), prompt(90)]
    assert limits.passes(chunks) == [chunks]
    limits.prompts.lower(120)
    assert limits.passes(chunks) == [chunks[:5], chunks[5:7], chunks[7:]]
    limits.running.lower(4)
    assert limits.passes(chunks) == [chunks[:2], chunks[2:4], chunks[4:5], chunks[5:7], chunks[7:]]
    assert limits.passes([]) == []


def test_the_scheduler_plans_no_more_prompt_tokens_than_the_memory_takes() -> None:
    scheduler = Scheduler(2, StepCost(prefill_tokens=512))
    scheduler.add(SequenceState(Row("a", GenerateRequest(prompt="-")), [1] * 1000, 9))
    assert sizes(scheduler.plan_prefill().chunks) == [512]
    scheduler.memory.too_large([prompt(512)])
    assert sizes(scheduler.plan_prefill().chunks) == [256]


def test_a_chunk_is_shortened_down_to_a_few_tokens() -> None:
    chunk: Chunk | None = prompt(100)
    seen = []
    while chunk := shorter(chunk):
        seen.append(chunk.stop)
    assert seen == [50, 25, LEAST_PROMPT_TOKENS]
    without = shorter(running(3))
    assert without
    assert (without.stop - without.start, without.drafts) == (1, ())
    assert shorter(without) is None


def test_a_prompt_that_fails_alone_for_want_of_memory_goes_through_in_parts() -> None:
    def scarce(chunks: list[Chunk]) -> int:
        if sum(sizes(chunks)) > 40:
            raise MemoryError("out of memory")
        return len(chunks)

    passes = StepPasses(scarce, limits := MemoryLimits())
    assert passes.run([running(), prompt(200)]) == [(passes.computed[:1], 1), (passes.computed[1:], 1)]
    assert (sizes(passes.computed), passes.failed, limits.prompts.most) == ([1, 25], [], 25)
    assert passes.too_large == 4, "with the row, then alone of 200, 100 and 50 tokens"
    again = StepPasses(scarce, limits)
    again.run([running(), prompt(25)])
    assert again.too_large == 0, "it is not found out anew"


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), max_size=8), st.integers(16, 60), st.integers(1, 30))
def test_with_room_for_the_least_nothing_fails_and_failures_end(lengths: list[int], room: int, rows: int) -> None:
    """Each failure halves what is tried, so a memory that never grows causes a few dozen at most."""

    def scarce(chunks: list[Chunk]) -> int:
        if sum(sizes(chunks)) > room:
            raise MemoryError
        return 0

    limits, failures = MemoryLimits(), []
    for _ in range(8):
        chunks = [running() for _ in range(rows)]
        chunks += [prompt(min(length, limits.prompts.most or length)) for length in lengths]
        passes = StepPasses(scarce, limits)
        passes.run(chunks)
        assert not passes.failed
        assert [chunk.sequence for chunk in passes.computed] == [chunk.sequence for chunk in chunks]
        failures.append(passes.too_large)
    assert sum(failures) <= 120
    assert failures[-1] == 0
