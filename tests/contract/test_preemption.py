"""Jobs that give way to more urgent ones, in the queue: on fakeredis and on a real server alike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_worker.preemption import Preemption, RunningRow
from promptq.contract.job import Status
from promptq.contract.queues import PRIORITIES, Priority
from promptq.queue.records import Claim, Terms
from tests.fakes import IDENTITY, NOW, SETTINGS, TimedStore, failure, fake_redis, keys, ran, submit, success

AGEING = 2


def claim(store: TimedStore, **terms: object) -> Claim:
    return store.claim("w", 1, NOW, resumes=IDENTITY, **terms)[0]


def test_a_job_that_gave_way_is_first_in_line_with_its_tokens_and_its_attempt(store: TimedStore) -> None:
    job_id = submit(store, cache=False, priority="low").job.id
    held = claim(store)
    for times in range(1, 4):
        assert ran(store, held, len(held.progress), (times,), "a") == "ok"
        submit(store, cache=False, priority="low")
        assert store.release([held], NOW, reason="preempted") == 1
        held = claim(store)
        assert (held.id, held.attempts, held.moves, held.preemptions) == (job_id, 1, times, times)
        assert held.progress == tuple(range(1, times + 1))
    assert store.client.hget(keys.totals(), "requeued:preempted") == b"3"


def test_a_drain_is_no_preemption(store: TimedStore) -> None:
    submit(store, cache=False, priority="low")
    store.release([claim(store)], NOW)
    again = claim(store)
    assert (again.moves, again.preemptions) == (1, 0)


def test_only_more_urgent_jobs_are_claimed_where_that_is_asked(store: TimedStore) -> None:
    low, default, high = (submit(store, cache=False, priority=name).job.id for name in ("low", "default", "high"))
    assert [job.id for job in store.claim("w", 3, NOW + 900, above="default", busy=True)] == [high]
    assert [job.id for job in store.claim("w", 3, NOW + 900, above="low", busy=True)] == [default]
    assert [job.id for job in store.claim("w", 3, NOW + 900, busy=True)] == [low]


def test_a_claim_for_urgent_jobs_finds_what_a_lost_answer_leased_in_any_queue(store: TimedStore) -> None:
    submit(store, cache=False, priority="low")
    with suppress(ConnectionError), store._answered() as token:
        (row,) = store.scripts.run(*store._claim_call("w", 1, Terms(), token))
        raise ConnectionError
    assert [job.id for job in store.claim("w", 1, NOW, above="default")] == [row[0].decode()]


def test_a_cancelled_job_that_gives_way_ends(store: TimedStore) -> None:
    job_id = submit(store, cache=False, priority="low").job.id
    held = claim(store)
    store.cancel(job_id, NOW)
    store.release([held], NOW, reason="preempted")
    assert store.get(job_id).status is Status.CANCELLED


def test_a_new_life_counts_anew(store: TimedStore) -> None:
    job_id = submit(store, cache=False, priority="low").job.id
    store.release([claim(store)], NOW, reason="preempted")
    store.finish("w", [failure(claim(store))], NOW)
    store.retry(job_id, NOW)
    assert claim(store).preemptions == 0


def test_giving_way_does_not_wash_a_job_clean_of_lost_workers(store: TimedStore) -> None:
    job_id = submit(store, cache=False, priority="low").job.id
    for _ in range(SETTINGS.max_attempts):
        store.release([claim(store)], NOW, reason="preempted")
        claim(store)
        store.take_back("w", NOW)
    job = store.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.type) == (Status.FAILED, "worker_lost")


@dataclass
class Flood:
    """One worker under more urgent jobs than it can do. A step is one second and one token of each row."""

    store: TimedStore
    rules: Preemption
    slots: int
    now: float = NOW
    running: dict[str, tuple[Claim, int]] = field(default_factory=dict)
    preemptions: dict[str, int] = field(default_factory=dict)

    def step(self, length: int) -> None:
        self.now += 1.0
        waiting = self.store.claim("w", self.slots - len(self.running), self.now, busy=bool(self.running))
        if len(self.running) + len(waiting) == self.slots:
            need = self.rules.need([held for held, _ in self.running.values()], 0)
            urgent = self.store.claim("w", need.count, self.now, busy=True, above=need.above)
            self._give_way([one.priority for one in urgent])
            waiting += urgent
        self.running |= {one.id: (one, length) for one in waiting}
        assert len(self.running) <= self.slots
        self._generate()

    def _give_way(self, urgent: list[Priority]) -> None:
        rows = [RunningRow(job_id, held.priority, 0, held.preemptions) for job_id, (held, _) in self.running.items()]
        victims = self.rules.victims(urgent, rows, 0)
        assert len(victims) == len(urgent)
        for victim in victims:
            self.preemptions[victim.id] = self.preemptions.get(victim.id, 0) + 1
            self.store.release([self.running.pop(victim.id)[0]], self.now, reason="preempted")

    def _generate(self) -> None:
        left = {job_id: (held, tokens - 1) for job_id, (held, tokens) in self.running.items()}
        self.store.finish("w", [success(held) for held, tokens in left.values() if not tokens], self.now)
        self.running = {job_id: row for job_id, row in left.items() if row[1]}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mode=st.sampled_from(["high", "all"]),
    limit=st.integers(0, 4),
    slots=st.integers(1, 3),
    length=st.integers(1, 4),
    patient=st.lists(st.sampled_from(PRIORITIES[1:]), min_size=1, max_size=4),
)
def test_nobody_starves(mode: str, limit: int, slots: int, length: int, patient: list[Priority]) -> None:
    """Although urgent jobs come faster than they can be done, those that gave way end: once what came within their
    ageing is done it is their turn, and the limit leaves the slot to them.
    """
    store = TimedStore(fake_redis(), SETTINGS.model_copy(update={"ageing_seconds": AGEING}))
    flood = Flood(store, Preemption(mode, limit), slots)
    ids = [submit(store, cache=False, priority=name).job.id for name in patient]
    sooner = (2 * AGEING + 1) * (slots + 1)  # the most urgent jobs that ageing lets go before a low one
    longest = (sooner + 2 * (limit + 1) * len(patient)) * length
    while not all(store.get(job_id).status.is_terminal for job_id in ids):
        assert flood.now < NOW + longest, "a job starves"
        for _ in range(slots + 1):
            submit(store, now=flood.now, cache=False, priority="high")
        flood.step(length)
    assert max(flood.preemptions.values(), default=0) <= limit
