"""Usage is counted once, where jobs end, on fakeredis and on a real server alike."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from promptq.contract.errors import JobAlreadyTerminal
from promptq.contract.job import Result, Status
from promptq.queue.records import Claim, Ending
from promptq.queue.usage import read
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, new_job, submit, success, with_settings

DAY = datetime.fromtimestamp(NOW, UTC).date()
LATER = NOW + 10_000
RAN = {"succeeded": 1, "prompt_tokens": 1, "completion_tokens": 2}


def used(store: TimedStore, owner: str = "", days: int = 1) -> Counter[str]:
    """Counts over all models and so many days."""
    total: Counter[str] = Counter()
    for usage in read(store, owner, [DAY + timedelta(days=n) for n in range(days)]):
        total.update(usage.counts)
    return total


def run(store: TimedStore, now: float = NOW) -> bool:
    return store.finish("w", [success(store.claim("w", 1, now)[0])], now)[0]


class TestEnds:
    def test_a_run_counts_its_tokens_by_model(self, store: TimedStore) -> None:
        submit(store)
        result = Result("text", "stop", "m", prompt_tokens=40, completion_tokens=9, cached_tokens=32)
        store.finish("w", [Ending(store.claim("w", 1, NOW)[0], Status.SUCCEEDED, result)], NOW)
        (usage,) = read(store, "", [DAY])
        assert (usage.day, usage.model) == (DAY, store.settings.default_model)
        assert usage.counts == {"succeeded": 1, "prompt_tokens": 40, "cached_tokens": 32, "completion_tokens": 9}

    def test_another_models_jobs_are_its_own(self, store: TimedStore) -> None:
        other = new_job(job_id="a", ttl_seconds=1)
        store.submit(replace(other, model="org/o'ther:7b"), NOW)
        store.cancel("a", NOW)
        assert [(usage.model, usage.counts) for usage in read(store, "", [DAY])] == [
            ("org/o'ther:7b", {"cancelled": 1})
        ]

    def test_a_hit_is_a_job_without_tokens(self, store: TimedStore) -> None:
        submit(store)
        run(store)
        assert submit(store).outcome == "hit"
        assert used(store) == RAN | {"succeeded": 2, "cache_hits": 1}

    def test_a_hit_is_its_owners(self, store: TimedStore) -> None:
        for _ in range(2):
            store.submit(replace(new_job(), owner="ann", model=store.settings.default_model), NOW)
            if not used(store, "ann"):
                run(store)
        assert used(store, "ann") == RAN | {"succeeded": 2, "cache_hits": 1}
        assert used(store) == used(store, "bob") == {}

    def test_a_join_is_a_job_without_tokens(self, store: TimedStore) -> None:
        assert [submit(store).outcome for _ in range(3)] == ["new", "join", "join"]
        run(store)
        assert used(store) == RAN | {"succeeded": 3, "joins": 2}

    def test_a_partial_text_counts(self, store: TimedStore) -> None:
        submit(store)
        store.finish("w", [cancelled(store.claim("w", 1, NOW)[0])], NOW)
        assert used(store) == {"cancelled": 1, "prompt_tokens": 1, "completion_tokens": 1}

    def test_every_life_that_ends_counts(self, store: TimedStore) -> None:
        job = submit(store).job
        store.finish("w", [failure(store.claim("w", 1, NOW)[0])], NOW)
        store.retry(job.id, NOW)
        run(store)
        assert used(store) == RAN | {"failed": 1}

    def test_what_no_worker_ends_counts(self, store: TimedStore) -> None:
        store = with_settings(store, max_attempts=1)
        submit(store, "lost")
        store.claim("w", 1, NOW)
        store.cancel(submit(store, "cancelled").job.id, NOW)
        submit(store, "expired", ttl_seconds=1)
        store.reap(NOW + 5000)
        assert used(store) == {"failed": 1, "cancelled": 1, "expired": 1}

    def test_a_worker_that_is_fenced_off_counts_nothing(self, store: TimedStore) -> None:
        submit(store)
        (old,) = store.claim("w1", 1, NOW)
        store.reap(LATER)
        (new,) = store.claim("w2", 1, LATER)
        assert store.finish("w1", [success(old)], LATER) == [False]
        assert used(store) == {}
        assert store.finish("w2", [success(new)], LATER) == [True]
        assert used(store) == RAN

    def test_a_repeat_counts_once(self, store: TimedStore) -> None:
        submit(store)
        ending = success(store.claim("w", 1, NOW)[0])
        assert [store.finish("w", [ending, ending], NOW) for _ in range(2)] == [[True, True]] * 2
        assert used(store) == RAN

    def test_a_key_that_is_no_hash_costs_the_counts_only(self, store: TimedStore) -> None:
        store.client.set(keys.usage(f"{DAY}:"), "x")
        job = submit(store).job
        assert run(store)
        assert store.get(job.id).status is Status.SUCCEEDED


def test_days_are_those_of_the_end_and_live_as_long_as_the_setting_says(store: TimedStore) -> None:
    store = with_settings(store, usage_days=7)
    submit(store, "a")
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp() + 86_400
    run(store, midnight - 0.001)
    submit(store, "b")
    run(store, midnight)
    assert [usage.day for usage in read(store, "", [DAY, DAY + timedelta(days=1)])] == [DAY, DAY + timedelta(days=1)]
    assert 0 <= 7 * 86_400 - store.client.ttl(keys.usage(f"{DAY}:")) < 60


LEASE = 1000
"""Longer than a lease; the clock of the test jumps over it, or moves by far less in all."""


@dataclass
class Twin:
    """A job as the model knows it.

    Attributes:
        key: its owner and its prompt.
        status: queued, joined, runs or over.
        runs: the claim that holds it.
    """

    key: tuple[str, str]
    status: str
    shares: bool
    runs: Claim | None = None
    claimed_at: float = 0.0
    is_cancelled: bool = False


@dataclass
class PlainModel:
    """What the store should count, by rules of its own: who is answered by the cache, who joins whom, who ends.

    Attributes:
        groups: by owner and prompt, the live jobs that share a text; the first one leads.
        cached: owners and prompts that have a text.
    """

    expected: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    jobs: dict[str, Twin] = field(default_factory=dict)
    groups: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    cached: set[tuple[str, str]] = field(default_factory=set)

    def submit(self, job_id: str, owner: str, prompt: str, shares: bool) -> str:
        """What becomes of it."""
        key = (owner, prompt)
        outcome = "hit" if key in self.cached else "join" if self.groups[key] else "new"
        outcome = outcome if shares else "new"
        status = {"hit": "over", "join": "joined", "new": "queued"}[outcome]
        self.jobs[job_id] = Twin(key, status, shares)
        if outcome == "hit":
            self.expected[owner].update(succeeded=1, cache_hits=1)
        elif shares:
            self.groups[key].append(job_id)
        return outcome

    def claim(self, claim: Claim, now: float) -> None:
        job = self.jobs[claim.id]
        assert job.status == "queued", "who has joined is not run"
        job.status, job.runs, job.claimed_at = "runs", claim, now

    def finish(self, ending: Ending) -> None:
        job, result = self.jobs[ending.claim.id], ending.result
        if job.runs is not ending.claim:
            return
        tokens = {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens}
        self._end(job, str(ending.state), **tokens)
        if ending.state is Status.SUCCEEDED and job.shares:
            self.cached.add(job.key)
            for joined in self.groups.pop(job.key, []):
                self._end(self.jobs[joined], "succeeded", joins=1)

    def cancel(self, job_id: str) -> str:
        """What becomes of it: a job that runs is left to its worker."""
        job = self.jobs[job_id]
        if job.status in ("queued", "joined"):
            self._end(job, "cancelled")
            return "cancelled"
        job.is_cancelled = job.status == "runs"
        return "running" if job.is_cancelled else "over"

    def lose_leases(self, now: float) -> None:
        for job in self.jobs.values():
            if job.status == "runs" and now - job.claimed_at >= LEASE:
                job.status, job.runs = "queued", None
                if job.is_cancelled:
                    self._end(job, "cancelled")

    def _end(self, job: Twin, state: str, **counts: int) -> None:
        """Count it. Unless it gave its text to its group, the next one leads."""
        self.expected[job.key[0]].update({state: 1} | counts)
        job.status, job.runs = "over", None
        group = [job_id for job_id in self.groups[job.key] if self.jobs[job_id].status != "over"]
        self.groups[job.key] = group
        if group and state != "succeeded" and self.jobs[group[0]].status == "joined":
            self.jobs[group[0]].status = "queued"


@pytest.mark.parametrize("seed", range(12))
def test_the_sums_are_a_plain_models(store: TimedStore, seed: int) -> None:
    """Whatever the order of submits, hits, joins, ends, repeats, cancels and lost leases."""
    store = with_settings(store, max_attempts=1000)
    draw, now, model = random.Random(seed), NOW, PlainModel()
    claims: list[Claim] = []
    for step in range(160):
        now += draw.choice([0, 0.01, 0.01, 0.01, 0.01, 4000])
        store.reap(now)  # no attempt is the last: leases that ran out are back in the queue
        model.lose_leases(now)
        act = draw.choice(["submit", "submit", "submit", "claim", "claim", "finish", "finish", "cancel"])
        if act == "submit":
            _submit(store, model, draw, step, now)
        elif act == "claim":
            for claim in store.claim("w", draw.randint(1, 4), now):
                model.claim(claim, now)
                claims.append(claim)
        elif act == "finish" and claims:
            _finish(store, model, draw, draw.sample(claims[-5:], min(3, len(claims))), now)
        elif act == "cancel" and model.jobs:
            _cancel(store, model, draw.choice(list(model.jobs)[-8:]), now)
    owners = ("", "ann")
    counts = {owner: used(store, owner, days=10) for owner in owners}
    assert counts == {owner: model.expected[owner] for owner in owners}
    for name in ("cache_hits", "joins", "cancelled"):
        assert sum(count[name] for count in counts.values()), f"no {name}: the sequence tries too little"


def _submit(store: TimedStore, model: PlainModel, draw: random.Random, step: int, now: float) -> None:
    owner, shares, prompt = draw.choice(["", "ann"]), draw.random() < 0.8, f"p{step // 40} {draw.randrange(2)}"
    new = replace(new_job(prompt, cache=shares), owner=owner, model=store.settings.default_model)
    done = store.submit(new, now)
    assert done.outcome == model.submit(done.job.id, owner, prompt, shares)


def _finish(store: TimedStore, model: PlainModel, draw: random.Random, claims: list[Claim], now: float) -> None:
    endings = [
        Ending(
            claim,
            draw.choice([Status.SUCCEEDED, Status.SUCCEEDED, Status.CANCELLED]),
            Result("t", "stop", "m", n, n + 1),
        )
        for n, claim in enumerate(claims, 5)
    ]
    store.finish("w", endings, now)
    for ending in endings:
        model.finish(ending)


def _cancel(store: TimedStore, model: PlainModel, job_id: str, now: float) -> None:
    wanted = model.cancel(job_id)
    try:
        assert str(store.cancel(job_id, now)) == wanted
    except JobAlreadyTerminal:
        assert wanted == "over"
