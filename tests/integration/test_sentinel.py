"""Failover by Sentinels under load: nobody is restarted, and what was on both servers is not lost."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.contract.errors import RedisUnavailable
from promptq.queue.connection import answering, connect, without_retries
from promptq.queue.sentinel import ASK_SECONDS
from promptq.queue.server_check import examine
from tests.fakes import keys
from tests.integration.apis import Api, running
from tests.integration.test_failover import SCALER, count_keys, end_of, put
from tests.processes import start, wait_until
from tests.sentinels import PATIENCE, Sentinels


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    watched = Sentinels(tmp_path_factory.mktemp("sentinels"))
    yield watched
    watched.stop()


def test_an_address_of_sentinels_leads_to_the_primary(sentinels: Sentinels) -> None:
    with connect(sentinels.url) as client, without_retries(client) as claiming, connect(sentinels.primary.url) as plain:
        client.set("key", "value")
        assert (claiming.get("key"), plain.getdel("key")) == (b"value", b"value")
        assert examine(client, keys) == []


def test_a_sentinel_that_is_silent_is_passed_over(sentinels: Sentinels) -> None:
    url = sentinels.url.replace("//", "//127.0.0.1:1,")
    with connect(url) as client:
        assert client.ping()


def test_sentinels_that_cannot_help_say_why(sentinels: Sentinels) -> None:
    for url, words in (
        (sentinels.url.replace("service=queue", "service=other"), "primary of the service 'other'; its name may be"),
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/0?service=queue", "all of them do not answer"),
    ):
        with connect(url) as client, pytest.raises(RedisUnavailable, match=words), answering():
            client.ping()


def test_a_primary_that_was_replaced_and_lives_on_is_left(sentinels: Sentinels) -> None:
    """It takes writes for seconds after that, until a Sentinel tells it."""
    with connect(sentinels.url) as client, without_retries(client) as claiming:
        assert [client.ping(), claiming.ping()] == [True, True]
        sentinels.hand_over()
        time.sleep(ASK_SECONDS)
        client.set("said", "to the new one")
        claiming.set("claimed", "there too")
        with connect(sentinels.primary.url) as new:
            assert new.mget("said", "claimed") == [b"to the new one", b"there too"]
    sentinels.wait_for_link()


def test_everybody_follows_the_sentinels_to_the_new_primary(
    sentinels: Sentinels, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scaler = start("scaler", sentinels, **SCALER)
    try:
        with running(sentinels, tmp_path, 1) as api:
            wait_until(lambda: api.call("GET", "/v1/workers").json()["workers"], PATIENCE, "the worker")
            follow(sentinels, api)
    finally:
        scaler.send_signal(signal.SIGQUIT)
        scaler.wait()
    assert "Traceback" not in capfd.readouterr().err


def follow(sentinels: Sentinels, api: Api) -> None:
    """Hand over, then let the new primary die, with jobs at each step; all that had been on both servers ends well."""
    seen: Counter[int] = Counter()
    ids = [put(api, f"before-{i}", seen) for i in range(8)]
    sentinels.settle()
    sentinels.hand_over("COORDINATED")
    moved = time.monotonic()
    ids += [put(api, f"between-{i}", seen) for i in range(8)]
    print(f"submits were acknowledged {time.monotonic() - moved:.2f} s after it was handed over: {dict(seen)}")
    sentinels.wait_for_link()
    sentinels.settle()
    survivor = sentinels.other
    sentinels.crash()
    crashed = time.monotonic()
    ids += [put(api, f"after-{i}", seen) for i in range(4)]
    print(f"submits were acknowledged {time.monotonic() - crashed:.2f} s after the crash: {dict(seen)}")
    assert sentinels.primary is survivor
    assert {end_of(api, job_id) for job_id in ids} == {"succeeded"}
    assert set(seen) <= {202, 503}
    with connect(sentinels.url) as client:
        assert {client.hget(f"rq:job:{job_id}", "status") for job_id in ids} == {b"finished"}
        assert count_keys(client) == []
