"""What a client is told, whatever it has heard before; and one feed for all who read a job."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from api.views.events import Teller
from api.waiting.streams import Feed, Streams, View
from api.waiting.subscription import Subscription
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job, Result, Status
from promptq.contract.queues import QueueName
from promptq.queue.progress import Followed, Place
from tests.processes import wait_until

RUNNING = Status.RUNNING


def told(teller: Teller, view: View) -> list[tuple[str, str, object]]:
    """(event, id, its text or None) of each."""
    blocks = [dict(line.split(": ", 1) for line in block.strip().split("\n")) for block in teller.tell("j", view)]
    return [(block["event"], block.get("id", ""), json.loads(block["data"]).get("text")) for block in blocks]


def feed_after(*looks: Followed) -> Feed:
    feed = Feed("j")
    for followed in looks:
        feed.take(followed)
    return feed


class TestTeller:
    def test_each_client_gets_the_rest_from_its_own_position(self) -> None:
        view = View(RUNNING, 0, "abcdef")
        assert told(Teller(), view)[1:] == [("delta", "6", "abcdef")]
        assert told(Teller(4), view)[1:] == [("delta", "6", "ef")]
        assert told(Teller(6), view)[1:] == []
        assert told(Teller(9), view)[1:] == []

    def test_nothing_is_told_twice(self) -> None:
        teller = Teller()
        told(teller, View(RUNNING, 0, "ab"))
        assert told(teller, View(RUNNING, 0, "ab")) == []
        assert told(teller, View(RUNNING, 0, "abc")) == [("delta", "3", "c")]

    def test_a_start_over_is_told_before_its_text(self) -> None:
        teller = Teller()
        told(teller, View(RUNNING, 0, "ab"))
        assert told(teller, View(RUNNING, 1, "x")) == [("reset", "0-1", None), ("delta", "1-1", "x")]
        assert told(Teller(2, 0), View(RUNNING, 1, "xyz"))[1:] == [("reset", "0-1", None), ("delta", "3-1", "xyz")]
        assert told(Teller(2, 1), View(RUNNING, 1, "xyz"))[1:] == [("delta", "3-1", "z")]


class TestFeed:
    def test_pieces_add_up(self) -> None:
        feed = feed_after(Followed(RUNNING, 0, "j", [("1-1", "a"), ("1-2", "b")]), Followed(RUNNING, 0, "j", []))
        feed.take(Followed(RUNNING, 0, "j", [("1-5", "cd")], 2))
        assert (feed.view.text, feed.place) == ("abcd", Place("j", "j", "1-5"))

    def test_all_is_read_again_where_the_server_has_other_entries_than_were_read(self) -> None:
        feed = feed_after(Followed(RUNNING, 0, "j", [("1-2", "ab"), ("1-4", "cd")]))
        assert feed.take(Followed(RUNNING, 0, "j", [("1-6", "ef")], 3))
        assert (feed.view.text, feed.place) == ("abcd", Place("j", "j", ""))
        assert not feed.take(Followed(RUNNING, 0, "j", [("1-3", "abc"), ("1-6", "def")]))
        assert (feed.view.text, feed.place) == ("abcdef", Place("j", "j", "1-6"))

    def test_a_start_over_drops_the_text_with_and_without_new_entries(self) -> None:
        begun = Followed(RUNNING, 0, "j", [("1-1", "a")])
        assert feed_after(begun, Followed(RUNNING, 1, "j", [])).view == View(RUNNING, 1, "")
        assert feed_after(begun, Followed(RUNNING, 1, "j", [("2-1", "x")])).view == View(RUNNING, 1, "x")

    def test_a_new_leader_s_text_is_read_from_its_beginning(self) -> None:
        feed = feed_after(Followed(RUNNING, 0, "first", [("1-4", "abcd")]), Followed(RUNNING, 0, "second", []))
        assert feed.place == Place("j", "second", "")
        feed.take(Followed(RUNNING, 0, "second", [("1-2", "ab")]))
        assert feed.view.text == "ab"

    @pytest.mark.parametrize("result", [Result("abc", "stop", "m"), None])
    def test_what_is_stored_counts_in_the_end(self, result: Result | None) -> None:
        feed = feed_after(Followed(RUNNING, 0, "j", [("1-1", "a")]))
        feed.end(Job("j", Status.FAILED, QueueName("m", "low"), 0.0, result=result))
        assert (feed.view.text, feed.view.is_over) == ("abc" if result else "a", True)


class Queue:
    """Jobs that get text when the test says so."""

    def __init__(self) -> None:
        self.texts: dict[str, list[tuple[str, str]]] = {}
        self.leaders: dict[str, str] = {}
        self.looks: list[tuple[list[str], bool]] = []
        self.is_away = False

    def follow(self, places: Sequence[Place], watch: bool) -> list[Followed]:
        if self.is_away:
            raise RedisUnavailable("away")
        self.looks.append(([place.job_id for place in places], watch))
        return [self._followed(place) for place in places]

    def _followed(self, place: Place) -> Followed:
        source = self.leaders.get(place.job_id, place.job_id)
        entries = self.texts.get(source, [])
        read = [entry for entry, _ in entries].index(place.last) + 1 if place.last and place.source == source else 0
        before = int(entries[read - 1][0].partition("-")[2]) if read else 0
        return Followed(RUNNING, 0, source, entries[read:], before)


def streams_of(queue: Queue) -> Streams:
    return Streams(Subscription("redis://127.0.0.1:1"), ["moved"], queue.follow, lambda ids: [None for _ in ids])


def test_all_who_read_a_job_share_one_feed_and_one_look() -> None:
    queue = Queue()
    streams = streams_of(queue)
    with streams.reading(["j"]) as ([feed], _), streams.reading(["j"]) as ([same], changed), streams.reading(["k"]):
        assert feed is same
        wait_until(lambda: len(queue.looks) and not feed.is_new, 5)
        assert queue.looks[0][1], "the first look has the workers tell at every step"
        queue.texts["j"] = [("1-1", "a")]
        changed.clear()
        streams.note("moved", "j other")
        assert changed.wait(5)
        assert feed.view.text == "a"
    streams.drain()


def test_those_who_read_a_joined_job_hear_of_what_its_leader_got() -> None:
    queue = Queue()
    queue.leaders["j"] = "first"
    streams = streams_of(queue)
    with streams.reading(["j"]) as ([feed], changed), streams.reading(["k"]):
        wait_until(lambda: not feed.is_new, 5)
        for leader in ("first", "second"):
            queue.leaders["j"] = leader
            queue.texts[leader] = [("1-1", leader)]
            changed.clear()
            streams.note("done", "j")
            assert changed.wait(5)
            queue.texts[leader].append(("1-2", "!"))
            wait_until(lambda: streams._joined == {name: {"j"} for name in queue.texts}, 5)
            changed.clear()
            streams.note("moved", leader)
            assert changed.wait(5)
            assert feed.view.text == f"{leader}!"
    assert streams._joined == {}
    streams.drain()


def test_a_look_that_fails_is_made_again_without_a_message() -> None:
    queue = Queue()
    streams = streams_of(queue)
    queue.is_away = True
    with streams.reading(["j"]) as ([feed], _):
        wait_until(lambda: not streams._changed, 5)
        queue.texts["j"] = [("1-1", "a")]
        queue.is_away = False
        wait_until(lambda: feed.view.text == "a", 10)
    streams.drain()
