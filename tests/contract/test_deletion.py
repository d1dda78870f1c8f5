"""Jobs that are deleted, and what OpenAI's responses keep beside theirs: on fakeredis and on a real server alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from promptq.contract.errors import JobNotFound
from promptq.contract.job import Status
from promptq.queue.records import Ending
from promptq.queue.responses import asked, delete
from tests.fakes import NOW, TimedStore, failure, keys, new_job, ran, submit, success


def response(store: TimedStore, note: str = '{"background": true}') -> str:
    new = replace(new_job("x"), model=store.settings.default_model, response=note)
    return store.submit(new, NOW).job.id


@pytest.mark.parametrize("how", [success, failure])
def test_of_a_deleted_job_nothing_is_left(store: TimedStore, how: Callable[..., Ending]) -> None:
    job_id = submit(store, cache=False).job.id
    (claim,) = store.claim("w", 1, NOW)
    ran(store, claim, 0, (1,), "a")
    store.finish("w", [how(claim)], NOW)
    assert delete(store, job_id)
    assert [key for key in store.client.keys("*") if job_id.encode() in key] == []
    assert store.client.zcard(keys.finished("default")) == store.client.zcard(keys.failed("default")) == 0
    with pytest.raises(JobNotFound):
        delete(store, job_id)


def test_one_that_has_not_ended_goes_after_its_end(store: TimedStore) -> None:
    job_id = response(store)
    (claim,) = store.claim("w", 1, NOW)
    assert not delete(store, job_id)
    with pytest.raises(JobNotFound):
        asked(store, job_id)
    assert store.get(job_id).status is Status.RUNNING
    store.finish("w", [success(claim)], NOW)
    assert store.client.ttl(keys.job(job_id)) <= 1


def test_what_a_response_was_asked_is_kept_with_its_prompt(store: TimedStore) -> None:
    new = new_job("x")
    messages = [{"role": "user", "content": "Hello"}]
    request = new.request.model_copy(update={"prompt": None, "messages": None})
    request = type(request).model_validate({"messages": messages})
    job_id = store.submit(
        replace(new, model=store.settings.default_model, request=request, response='{"user": "u"}'), NOW
    ).job.id
    found = asked(store, job_id)
    assert (found.fields, found.messages) == ({"user": "u"}, messages)


def test_another_job_is_no_response(store: TimedStore) -> None:
    with pytest.raises(JobNotFound):
        asked(store, submit(store).job.id)
