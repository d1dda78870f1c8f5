"""Calls whose reply is lost with their connection: made again, they say what happened, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import redis

from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from promptq.queue.usage import read
from tests.fakes import TimedStore, failure, submit, success
from tests.proxy import Proxy


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


@pytest.fixture
def far(proxy: Proxy, client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """A store at the other end of a connection that may break; its scripts are known to the server."""
    far = TimedStore(connect(proxy.url), settings)
    job = submit(far, "first").job
    far.finish("w", [failure(claim) for claim in far.claim("w", 1)])
    far.retry(job.id)
    far.cancel(job.id)
    return far


def used(store: TimedStore) -> Mapping[str, int]:
    """All that today's jobs have used."""
    (usage,) = read(store, "", [datetime.fromtimestamp(store.now(), UTC).date()])
    return usage.counts


def test_a_claim_made_again_finds_what_it_leased(far: TimedStore, proxy: Proxy) -> None:
    ids = [submit(far, str(number)).job.id for number in range(3)]
    proxy.loses_reply = True
    with pytest.raises(RedisUnavailable):
        far.claim("w", 2)
    again = far.claim("w", 2)
    assert [(claim.id, claim.attempts) for claim in again] == [(ids[0], 1), (ids[1], 1)]
    assert far.finish("w", [success(claim) for claim in again]) == [True, True]
    assert [claim.id for claim in far.claim("w", 2)] == ids[2:]


def test_an_ending_made_again_counts(far: TimedStore, proxy: Proxy) -> None:
    job = submit(far).job
    claims = far.claim("w", 1)
    proxy.loses_reply = True
    assert far.finish("w", [success(claims[0])]) == [True]
    assert far.get(job.id).status is Status.SUCCEEDED
    assert used(far) == {"cancelled": 1, "succeeded": 1, "failed": 1, "prompt_tokens": 1, "completion_tokens": 2}


def test_an_ending_with_a_claim_made_again_loses_neither(far: TimedStore, proxy: Proxy) -> None:
    submit(far, "one")
    claims = far.claim("w", 1)
    following = submit(far, "two").job
    proxy.loses_reply = True
    with pytest.raises(RedisUnavailable):
        far.finish_and_claim("w", [success(claims[0])], 1)
    stored, more = far.finish_and_claim("w", [success(claims[0])], 1)
    assert (stored, [claim.id for claim in more]) == ([True], [following.id])
    assert far.client.hget(far.keys.totals(), "succeeded") == b"1"


def test_a_cancel_made_again_is_no_conflict(far: TimedStore, proxy: Proxy) -> None:
    job = submit(far).job
    proxy.loses_reply = True
    assert far.cancel(job.id) is Status.CANCELLED
    assert used(far) == {"cancelled": 2, "failed": 1}, "one of them is the fixture's"


def test_a_retry_made_again_is_no_conflict(far: TimedStore, proxy: Proxy) -> None:
    job = submit(far).job
    far.finish("w", [failure(claim) for claim in far.claim("w", 1)])
    far.get(job.id)
    run = far.scripts.run

    def lose_the_next(name: str, arguments: object) -> object:
        proxy.loses_reply = name == "retry"
        return run(name, arguments)

    far.scripts.run = lose_the_next  # type: ignore[method-assign]
    far.retry(job.id)
    assert far.get(job.id).status is Status.QUEUED
    assert far.client.llen(far.keys.queue("default")) == 1


def test_calls_of_many_threads_at_once_have_tokens_of_their_own(store: TimedStore) -> None:
    ids = [submit(store, str(number), cache=False).job.id for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(store.cancel, ids)) == {Status.CANCELLED}
