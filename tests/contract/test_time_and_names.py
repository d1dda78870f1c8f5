"""Scripts go by the server's clock, and by names that are given to them."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime
from importlib import resources

import pytest
import redis

from promptq.contract.job import Status, to_iso
from promptq.contract.keys import Keys, lua_prelude
from promptq.contract.queues import PRIORITIES
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.scripts import PARTS, source
from promptq.queue.store import JobStore, connect
from tests.fakes import keys, new_job, success


def test_lua_writes_times_as_rq_does(client: redis.Redis) -> None:
    base = lua_prelude(keys) + (resources.files("promptq.queue") / "lua" / "base.lua").read_text()
    script = client.register_script(base + "return iso_time(tonumber(ARGV[1]))")
    chance = random.Random(7)
    leap_days = [datetime(year, 2, 29, 23, 59, 59, 999_999, UTC).timestamp() for year in (2000, 2024, 2096)]
    turns = [datetime(year, 1, 1, tzinfo=UTC).timestamp() + off for year in (1970, 2027, 2100) for off in (0, 0.5)]
    for seconds in [*leap_days, *turns, *(round(chance.uniform(0, 4e9), 6) for _ in range(300))]:
        assert script(args=[repr(seconds)]).decode() == to_iso(seconds)


def test_a_clock_of_the_caller_has_no_say(
    client: redis.Redis, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts an hour off, either way: nobody's job expires early, loses its lease, or waits a negative time."""
    store = JobStore(client, settings)
    true_time = time.time
    for skew in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda skew=skew: true_time() + skew)
        job = store.submit(new_job(f"skewed by {skew}", ttl_seconds=30)).job
        assert abs(job.created_at - true_time()) < 5
        monkeypatch.setattr(time, "time", lambda skew=skew: true_time() - skew)
        assert store.reap().expired == 0
        assert Observer(client, settings).queues()[1].oldest_age_seconds < 5
        (claim,) = store.claim("w", 1)
        assert 0 <= claim.waited_seconds < 5
        monkeypatch.setattr(time, "time", lambda skew=skew: true_time() + skew)
        assert store.reap().requeued == 0
        assert store.renew([claim]) == ["ok"]
        assert store.finish("w", [success(claim)]) == [True]
        ended = store.get(job.id)
        assert (ended.status, ended.attempts) == (Status.SUCCEEDED, 1)
        assert ended.started_at is not None
        assert ended.finished_at is not None
        assert job.created_at <= ended.started_at <= ended.finished_at


def test_two_deployments_share_a_server(client: redis.Redis, settings: WorkerSettings) -> None:
    ours, theirs = (
        JobStore(client, settings.model_copy(update={"key_prefix": prefix})) for prefix in ("ours:", "theirs:")
    )
    first = ours.submit(new_job("same", job_id="nightly-7")).job
    second = theirs.submit(new_job("same", job_id="nightly-7")).job
    assert first.queue_position == second.queue_position == 0
    theirs.cancel("nightly-7")
    assert (ours.get("nightly-7").status, theirs.get("nightly-7").status) == (Status.QUEUED, Status.CANCELLED)
    (claim,) = ours.claim("w", 5)
    ours.finish("w", [success(claim, "ours")])
    assert theirs.claim("w", 5) == []
    assert {key.decode().partition(":")[0] for key in client.keys("*")} == {"ours", "theirs"}
    assert [queue.succeeded for queue in Observer(client, theirs.settings).queues()] == [0, 0, 0]


def test_ends_are_announced_under_the_deployments_own_name(client: redis.Redis, settings: WorkerSettings) -> None:
    store = JobStore(client, settings.model_copy(update={"key_prefix": "ours:"}))
    with client.pubsub() as listener:
        listener.psubscribe("*")
        assert listener.get_message(timeout=1)
        store.submit(new_job())
        (claim,) = store.claim("w", 1)
        store.cancel(claim.id)
        store.finish("w", [success(claim)])
        channels = [message["channel"] for _ in range(3) if (message := listener.get_message(timeout=1))]
    assert channels == [b"ours:promptq:0:wake", b"ours:promptq:0:cancel", b"ours:promptq:0:done"]


def test_databases_of_one_server_hear_nothing_of_each_other(server: EmbeddedServer, client: redis.Redis) -> None:
    """Redis keeps keys apart by database, and channels not."""
    first, second = (WorkerSettings(_env_file=None, redis_url=server.url[:-1] + number) for number in "01")
    stores = [JobStore(connect(each.redis_url), each) for each in (first, second)]
    with client.pubsub() as listener:
        listener.subscribe(*(first.keys.done_channel, second.keys.done_channel))
        assert [listener.get_message(timeout=1)["type"] for _ in range(2)] == ["subscribe"] * 2
        for store in stores:
            store.submit(new_job(job_id="nightly-7"))
        stores[1].cancel("nightly-7")
        assert listener.get_message(timeout=1)["channel"].decode() == second.keys.done_channel
        assert listener.get_message(timeout=0.1) is None
    assert [store.get("nightly-7").status for store in stores] == [Status.QUEUED, Status.CANCELLED]
    stores[1].client.flushdb()


@pytest.mark.parametrize("name", PARTS)
def test_no_script_knows_a_queue_or_a_key_by_itself(name: str) -> None:
    text = source(name, Keys("prefix:"))
    spelled = re.findall(r"'(?:prefix:)?(?:rq|promptq):[a-z_0-9:]*'", text)
    assert len(spelled) == len(set(spelled)) == len(Keys().catalogue()) + 6  # the prelude's, each once
    assert not {f"'{priority}'" for priority in PRIORITIES} & set(re.findall(r"'\w+'", text))


@pytest.mark.parametrize(
    "path", sorted((resources.files("promptq.queue") / "lua").iterdir(), key=str), ids=lambda p: p.name
)
def test_no_script_is_longer_than_a_screen(path) -> None:
    assert len(path.read_text().splitlines()) <= 60
