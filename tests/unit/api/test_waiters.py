"""Waiters: woken by what they wait for, and never asleep past a lost message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from api.waiting.subscription import Hearer, Subscription
from api.waiting.waiters import READERS, Waiters
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job, Status

QUEUED = Job("j1", Status.QUEUED, "default", 0.0)
DONE = replace(QUEUED, status=Status.SUCCEEDED)


class Reader:
    """A job that ends when the test says so; counts how many read it, and how many at once."""

    def __init__(self) -> None:
        self.job = QUEUED
        self.reads = 0
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, _job_id: str) -> Job:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.001)
        with self._lock:
            self._now -= 1
            self.reads += 1
        return self.job


class FakeListener:
    """Keeps what it was made with, and counts its starts."""

    made: list[FakeListener]

    def __init__(
        self,
        _url: str,
        channels: Sequence[str],
        on_message: Callable[[str, str], None],
        on_connect: Callable[[], None],
        on_disconnect: Callable[[], None],
    ) -> None:
        self.channels, self.on_message = channels, on_message
        self.on_connect, self.on_disconnect = on_connect, on_disconnect
        self.closed = False
        self.made.append(self)

    def start(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class Found:
    """Which jobs have ended; keeps what was asked.

    Attributes:
        ended: None: Redis does not answer.
    """

    def __init__(self) -> None:
        self.ended: list[str] | None = []
        self.asked: list[list[str]] = []

    def __call__(self, ids: Sequence[str]) -> list[str]:
        self.asked.append(list(ids))
        if self.ended is None:
            raise RedisUnavailable("away")
        return self.ended


@pytest.fixture
def found() -> Found:
    return Found()


@pytest.fixture
def waiters(found: Found) -> Waiters:
    FakeListener.made = []
    return Waiters(Subscription("redis://nowhere", make_listener=FakeListener), "done", found)


@pytest.fixture
def waiting(waiters: Waiters) -> Iterator[Callable[..., list[threading.Thread]]]:
    """Threads that wait; each has read once when this returns."""
    started: list[threading.Thread] = []

    def start(read: Reader, count: int = 1) -> list[threading.Thread]:
        before = read.reads
        started.extend(threading.Thread(target=waiters.wait_for, args=("j1", 30, read)) for _ in range(count))
        for thread in started[-count:]:
            thread.start()
        while read.reads < before + count:
            time.sleep(0.001)
        return started[-count:]

    yield start
    waiters.drain()
    for thread in started:
        thread.join()


def ended(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


def test_nobody_listens_before_somebody_waits_and_then_one_does(waiters: Waiters, waiting: Callable) -> None:
    assert FakeListener.made == []
    waiting(Reader(), 3)
    assert len(FakeListener.made) == 1


def test_a_notification_wakes_everybody_who_waits_for_that_job(waiters: Waiters, waiting: Callable) -> None:
    read = Reader()
    threads = waiting(read, 5)
    read.job = DONE
    waiters.wake("", "another")
    assert read.reads == 5
    waiters.wake("", "j1")
    assert ended(threads)
    assert waiters._events == {}


@pytest.mark.parametrize("event", ["on_connect", "on_disconnect"])
def test_a_new_or_lost_subscription_makes_everybody_read_again(waiting: Callable, event: str) -> None:
    read = Reader()
    threads = waiting(read, 5)
    read.job = DONE
    getattr(FakeListener.made[0], event)()
    assert ended(threads)


def test_who_waits_is_looked_after_without_a_message(
    waiters: Waiters, waiting: Callable, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.waiting.waiters.REREAD_SECONDS", (0.01, 0.02))
    read = Reader()
    threads = waiting(read, 5)
    while len(found.asked) < 3:
        time.sleep(0.001)
    assert read.reads == 5
    assert found.asked[-1] == ["j1"]
    read.job, found.ended = DONE, ["j1"]
    assert ended(threads)


def test_nobody_who_waits_is_nothing_to_ask(waiters: Waiters, found: Found) -> None:
    waiters.reread()
    assert found.asked == []


def test_a_look_that_fails_makes_everybody_read_again(waiters: Waiters, waiting: Callable, found: Found) -> None:
    read = Reader()
    threads = waiting(read, 5)
    read.job, found.ended = DONE, None
    waiters.reread()
    assert ended(threads)


def test_a_job_that_ends_between_the_read_and_the_wait_is_not_missed(waiters: Waiters) -> None:
    def read(_job_id: str) -> Job:
        if calls:
            return DONE
        calls.append(1)
        waiters.wake("", "j1")
        return QUEUED

    calls: list[int] = []
    assert waiters.wait_for("j1", 30, read) is DONE


def test_a_thousand_woken_together_read_in_turns(waiters: Waiters, waiting: Callable) -> None:
    read = Reader()
    threads = waiting(read, 100)
    read.most, read.job = 0, DONE
    waiters.wake("", "j1")
    assert ended(threads)
    assert 0 < read.most <= READERS


def test_draining_ends_every_wait_and_lets_no_new_one_begin(waiters: Waiters, waiting: Callable) -> None:
    read = Reader()
    threads = waiting(read, 5)
    waiters.drain()
    assert ended(threads)
    assert waiters.wait_for("j1", 30, read) is QUEUED
    assert FakeListener.made[0].closed


def test_the_time_is_up(waiters: Waiters) -> None:
    started = time.monotonic()
    assert waiters.wait_for("j1", 0.05, Reader()) is QUEUED
    assert 0.05 <= time.monotonic() - started < 5


def test_a_client_that_has_left_ends_the_wait_unread(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.waiting.waiters.LOOK_SECONDS", 0.01)
    read, looks = Reader(), iter([False, False, True])
    assert waiters.wait_for("j1", 30, read, lambda: next(looks)) is QUEUED
    assert read.reads == 1
    assert waiters._events == {}


def test_an_error_of_the_read_ends_the_wait_and_leaves_nothing_behind(waiters: Waiters) -> None:
    def read(_job_id: str) -> Job:
        raise RedisUnavailable("away")

    with pytest.raises(RedisUnavailable):
        waiters.wait_for("j1", 30, read)
    assert waiters._events == {}


def test_all_who_wait_in_a_process_share_one_subscription_and_its_losses_count_once() -> None:
    FakeListener.made = []
    losses: list[int] = []
    subscription = Subscription("redis://nowhere", lambda: losses.append(1), FakeListener)
    heard: list[tuple[str, str, str]] = []
    for name, channels in (("a", ["done"]), ("b", ["moved", "done"])):
        subscription.add(Hearer(channels, lambda *said, name=name: heard.append((name, *said)), lambda: None))
    subscription.start()
    subscription.start()
    (listener,) = FakeListener.made
    assert listener.channels == ["done", "moved"]
    listener.on_message("moved", "1 2")
    listener.on_message("done", "3")
    assert heard == [("b", "moved", "1 2"), ("a", "done", "3"), ("b", "done", "3")]
    listener.on_disconnect()
    assert losses == [1]
    subscription.close()
    assert listener.closed


def test_a_subscription_that_was_closed_is_not_made() -> None:
    FakeListener.made = []
    subscription = Subscription("redis://nowhere", make_listener=FakeListener)
    subscription.close()
    subscription.start()
    assert FakeListener.made == []
