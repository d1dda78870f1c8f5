"""The worker's pure parts, and its desk on fakeredis."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from gpu_worker import claim_conversion
from gpu_worker.batching import AHEAD_SECONDS, Batching
from gpu_worker.claim_conversion import Run
from gpu_worker.claim_io import ClaimIO
from gpu_worker.engines.base import FinishReason, RowEnd
from promptq.contract.call import JobContext
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Status
from promptq.contract.queues import Priority, QueueName
from promptq.queue.store import Claim, JobStore
from tests.fakes import NOW, submit, success
from tests.processes import wait_until


def claim(priority: Priority = "default", timeout_seconds: float | None = None, **fields: Any) -> Claim:
    context = JobContext(timeout_seconds=timeout_seconds)
    return Claim("id", QueueName("m", priority), "e-0", **{"kwargs": {"prompt": "hi"}, "context": context, **fields})


class TestBatching:
    @pytest.mark.parametrize(
        ("mode", "held", "gathering", "room"),
        [
            ("continuous", 0, True, 4), ("continuous", 3, False, 1), ("continuous", 4, False, 0),
            ("static", 0, True, 4), ("static", 1, True, 3), ("static", 1, False, 0),
            ("off", 0, True, 1), ("off", 1, False, 0), ("off", 1, True, 0),
        ],
    )  # fmt: skip
    def test_room(self, mode: str, held: int, gathering: bool, room: int) -> None:
        assert Batching(mode, 4).room(held, gathering) == room

    def test_a_quick_engine_has_a_batch_claimed_ahead_and_a_slow_one_none(self) -> None:
        batching = Batching("continuous", 4)
        assert batching.ahead(4, AHEAD_SECONDS / 2) == 4
        assert batching.ahead(4, AHEAD_SECONDS * 2) == 0
        assert batching.ahead(1, AHEAD_SECONDS / 2) == 0
        assert Batching("static", 4).ahead(4, 0.0) == Batching("off", 4).ahead(1, 0.0) == 0
        assert batching.room(6, False, ahead=4) == 2
        assert batching.room(9, False, ahead=4) == 0

    def test_a_batch_starts_when_it_is_full_or_has_waited(self) -> None:
        batching = Batching("static", 4, max_wait_seconds=0.5)
        assert batching.starts(4, 0.0)
        assert batching.starts(1, 0.5)
        assert not batching.starts(3, 0.4)


class TestRows:
    def test_a_claim_becomes_a_row(self) -> None:
        row = claim_conversion.row(Run(claim("low", timeout_seconds=9.0), NOW + 5), 600)
        assert (row.id, row.request.prompt, row.deadline, row.rank) == ("id", "hi", NOW + 14, 2)
        assert claim_conversion.row(Run(claim(), NOW), 600).deadline == NOW + 600

    @pytest.mark.parametrize(
        "fields",
        [
            {"refusal": InvalidRequest("has webhooks")},
            {"kwargs": {"prompt": "hi", "max_tokens": "many"}},
            {"kwargs": {}},
        ],
    )
    def test_what_cannot_run_says_why(self, fields: dict[str, object]) -> None:
        with pytest.raises(InvalidRequest):
            claim_conversion.row(Run(claim(**fields), NOW), 600)

    @pytest.mark.parametrize(
        ("reason", "state", "error"),
        [
            (FinishReason.STOP, Status.SUCCEEDED, None), (FinishReason.LENGTH, Status.SUCCEEDED, None),
            (FinishReason.CANCELLED, Status.CANCELLED, None), (FinishReason.TIMEOUT, Status.FAILED, "timeout"),
            (FinishReason.ERROR, Status.FAILED, "oom"),
        ],
    )  # fmt: skip
    def test_endings(self, reason: FinishReason, state: Status, error: str | None) -> None:
        finished = RowEnd(reason, "text", 3, 4, 2, ("oom", "too big") if error == "oom" else None)
        ending = claim_conversion.ending(
            Run(claim(waited_seconds=1.0), NOW + 1, first_token_at=NOW + 2), finished, "m", NOW + 3
        )
        assert ending.state is state
        assert (ending.error.type if ending.error else None) == error
        if error != "oom":
            assert ending.result is not None
            timings = (
                ending.result.queue_seconds,
                ending.result.time_to_first_token_seconds,
                ending.result.run_seconds,
            )
            assert timings == (1.0, 1.0, 2.0)


class TestDesk:
    def desk(self, store: JobStore, mode: str = "continuous", wait: float = 0.0) -> ClaimIO:
        desk = ClaimIO(store, "w", Batching(mode, 4, wait), lambda *_: None)
        desk.start()
        return desk

    def test_it_claims_for_free_slots_and_again_when_they_free_up(self, fake_store: JobStore) -> None:
        ids = [submit(fake_store, cache=False).job.id for _ in range(6)]
        desk = self.desk(fake_store)
        first = desk.take(5)
        assert [claim.id for claim in first] == ids[:4]
        assert desk.take(0.05) == []
        desk.deliver([success(first[0]), success(first[1])])
        rest = wait_until(lambda: desk.take(1))
        assert [claim.id for claim in rest] == ids[4:]
        assert len(desk.held()) == 4
        desk.close(5)
        assert fake_store.get(ids[0]).status is Status.SUCCEEDED

    def test_what_is_claimed_ahead_waits_for_a_slot_and_its_lease_is_kept(
        self, fake_store: JobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gpu_worker.batching.AHEAD_SECONDS", 60)  # fakeredis is slow
        ids = [submit(fake_store, cache=False).job.id for _ in range(14)]
        desk = self.desk(fake_store)
        first = desk.take(5, 4)
        desk.deliver([success(claim) for claim in first])
        wait_until(lambda: desk.unfinished() >= 4)
        second = desk.take(5, 4)
        desk.deliver([success(claim) for claim in second])
        wait_until(lambda: desk.unfinished() == 6)
        assert [claim.id for claim in desk.take(5, 4)] == ids[8:12]
        assert desk.take(0.0, 0) == []
        assert {claim.id for claim in desk.held()} == set(ids[8:])
        assert [claim.id for claim in desk.stop_claiming()] == ids[12:]
        desk.close(5)

    def test_a_quick_engine_steps_aside_until_its_endings_are_on_their_way(
        self, fake_store: JobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gpu_worker.batching.AHEAD_SECONDS", 60)
        monkeypatch.setattr("gpu_worker.claim_io.YIELD_JOBS", 4)
        sent: list[int] = []
        turn = fake_store.finish_and_claim
        monkeypatch.setattr(
            fake_store, "finish_and_claim", lambda *values: (sent.append(len(values[1])), turn(*values))[1]
        )
        for _ in range(200):
            submit(fake_store, cache=False)
        desk, interval = self.desk(fake_store), sys.getswitchinterval()
        seen = []
        try:
            sys.setswitchinterval(60)  # nobody is made to give the interpreter away
            for _ in range(20):
                claims = desk.take(5, 4)
                sent.clear()
                desk.deliver([success(claim) for claim in claims])
                seen.append(sum(sent))
                time.sleep(0.01)
        finally:
            sys.setswitchinterval(interval)
        assert seen.count(4) > 10
        desk.close(5)

    def test_a_wake_brings_new_work(self, fake_store: JobStore) -> None:
        desk = self.desk(fake_store)
        assert desk.take(0.1) == []
        submit(fake_store)
        desk.wake()
        assert len(desk.take(5)) == 1
        desk.close(5)

    def test_a_static_batch_waits_to_fill_and_then_closes(self, fake_store: JobStore) -> None:
        desk = self.desk(fake_store, "static", wait=0.3)
        submit(fake_store, cache=False)
        desk.wake()
        time.sleep(0.1)
        assert desk.take() == []
        submit(fake_store, cache=False)
        desk.wake()
        assert len(desk.take(5)) == 2
        submit(fake_store, cache=False)
        desk.wake()
        assert desk.take(0.2) == []
        desk.close(5)

    def test_after_the_stop_it_claims_nothing_and_gives_up_what_was_not_started(self, fake_store: JobStore) -> None:
        submit(fake_store)
        desk = self.desk(fake_store, "static", wait=60)
        wait_until(desk.held)
        unstarted = desk.stop_claiming()
        assert len(unstarted) == 1
        submit(fake_store, cache=False)
        desk.wake()
        assert desk.take(0.2) == []
        assert desk.held() == []
        desk.close(5)
