"""Each law is broken once on purpose: it says so, and no other does but those that must."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptq.storage.storage import Storage
from tests.chaos.facts import BatchFact, Facts, JobFact
from tests.chaos.invariants import INVARIANTS, check
from tests.chaos.witness import Witnessed, read
from tests.fakes import TimedStore, keys, submit, success

Plant = Callable[[TimedStore, str, Facts], Facts]


def whole(store: TimedStore) -> tuple[str, Facts]:
    """One job that has ended as it should, and a batch, and an event; its id, and the facts."""
    job_id = submit(store, "a b", cache=False, now=time.time()).job.id
    store.finish("w", [success(claim, "a b") for claim in store.claim("w", 1)])
    job = JobFact.of("job 1", [job_id], store.get(job_id), expected="a b")
    answer = {"custom_id": "1", "response": {"body": {"choices": [{"message": {"content": "x"}}]}}}
    counts = {"total": 1, "completed": 1, "failed": 0}
    batch = BatchFact("b", "completed", counts, [answer], [], lambda _line: "x", ["1"])
    witness = Witnessed({job_id: Counter({0: 1, 1: 1})}, {job_id: [0]})
    return job_id, Facts(
        store, [job], 1, [batch], {job_id: ["evt_1"]}, [job_id], witness, most_attempts=1, stopped=True
    )  # fmt: skip


def job(**fields: Any) -> Plant:
    """Another state of the job, as it was found."""
    return lambda _store, _id, facts: replace(facts, jobs=[replace(facts.jobs[0], **fields)])


def batch(**fields: Any) -> Plant:
    """Another state of the batch."""
    return lambda _store, _id, facts: replace(facts, batches=[replace(facts.batches[0], **fields)])


def planted(act: Callable[[TimedStore, str], object]) -> Plant:
    """Something in Redis."""

    def plant(store: TimedStore, job_id: str, facts: Facts) -> Facts:
        act(store, job_id)
        return facts

    return plant


def generated(times: Mapping[int, int]) -> Plant:
    """Another testimony."""
    return lambda _store, job_id, facts: replace(facts, witness=Witnessed({job_id: Counter(times)}, {}))


ANSWER = {"custom_id": "1", "response": {"body": {"choices": [{"message": {"content": "y"}}]}}}
BREACHES: Mapping[str, Plant] = {
    "one_place": planted(lambda store, job_id: store.client.zadd(keys.failed("default"), {job_id: 1})),
    "nothing_lost": job(status=""),
    "one_job_a_key": job(ids=["other", "one"]),
    "every_job_ends": job(status="running"),
    "ends_once": job(seen={"status": "failed"}, now={"status": "succeeded"}),
    "one_result": planted(lambda store, job_id: store.client.xadd(keys.results(job_id), {"worker_name": "w"})),
    "right_text": job(text="a c"),
    "readers_see_it_whole": job(reading=["a gap"]),
    "attempts_within_bound": job(attempts=2),
    "nothing_runs": planted(lambda store, _: store.client.zadd(keys.wip("low"), {"x:1": 1})),
    "every_key_ends": planted(lambda store, _: store.client.set(keys.turn("echo"), "1")),
    "progress_ends": planted(lambda store, job_id: store.client.xadd(keys.progress(job_id), {"text": "a"})),
    "nobody_is_left": planted(lambda store, _: store.client.set(keys.lease("batch:b"), "t", ex=9)),
    "totals_agree": planted(lambda store, _: store.client.hincrby(keys.totals(), "submitted", 1)),
    "usage_agrees": planted(lambda store, _: store.client.hset(keys.usage("2026-01-01:x"), "succeeded:echo", 1)),
    "every_line_once": batch(failed=[{"custom_id": "1"}]),
    "lines_have_their_own_answer": batch(answered=[ANSWER]),
    "batches_complete": batch(status="expired"),
    "everyone_is_told": lambda _store, _id, facts: replace(facts, events={}),
    "one_event_an_end": lambda _store, job_id, facts: replace(facts, events={job_id: ["evt_1", "evt_2"]}),
    "little_is_generated_twice": generated({0: 1, 1: 2}),
    "nothing_is_skipped": generated({1: 1}),
}
BESIDE = {
    "one_job_a_key": {"nothing_lost", "one_result"}, "every_line_once": {"batches_complete"},
    "nothing_runs": {"every_key_ends"}, "progress_ends": {"every_key_ends"}, "usage_agrees": {"every_key_ends"},
}  # fmt: skip
"""What is broken with them, as one thing shows in several ways."""


@pytest.mark.parametrize("law", BREACHES)
def test_what_breaks_a_law_is_said_by_it(store: TimedStore, law: str) -> None:
    job_id, facts = whole(store)
    assert check(facts) == {}
    broken = check(BREACHES[law](store, job_id, facts))
    assert law in broken
    assert broken.keys() - {law} <= BESIDE.get(law, set())


def test_every_law_is_broken_somewhere_here() -> None:
    assert INVARIANTS.keys() == BREACHES.keys() | {"no_stray_object"}


def test_what_a_kill_of_redis_may_have_taken_is_excused(store: TimedStore) -> None:
    _, facts = whole(store)
    gone = [replace(facts.jobs[0], status="", acknowledged_at=7.0)]
    assert "nothing_lost" in check(replace(facts, jobs=gone))
    assert "nothing_lost" not in check(replace(facts, jobs=gone, excuse=lambda moment: moment == 7.0))


def test_objects_that_nobody_knows(store: TimedStore, tmp_path: Path) -> None:
    _, facts = whole(store)
    facts = replace(facts, storage=Storage(f"file://{tmp_path}"))
    assert check(facts) == {}
    facts.storage.write("batches/b/part", [b"x"])
    facts.storage.write("files/one.1234.tmp", [b"x"])
    assert check(facts) == {"no_stray_object": ["parts of b are left", "the file one.1234.tmp has no record"]}


def test_what_a_witness_has_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.witness").write_text("begin j 0\ntokens j 0 3\ntokens j 3 1\ntokens j 4")
    (tmp_path / "b.witness").write_text("begin j 2\ntokens j 2 4\n")
    seen = read(tmp_path)
    assert (seen.begun["j"], seen.doubled("j"), seen.generated, seen.gaps("j")) == ([0, 2], 2, 8, [])
    assert seen.doubled_by_job == {"j": 2}
