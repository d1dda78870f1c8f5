"""What a client is told, whatever it has heard before; and one feed for all who read a job."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from api.views.events import Teller
from api.waiting.streams import Feed, Streams, View
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
        feed.take(Followed(RUNNING, 0, "j", [("1-5", "cd")]))
        assert (feed.view.text, feed.place) == ("abcd", Place("j", "j", "1-5"))

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
        self.looks: list[tuple[list[str], bool]] = []
        self.is_away = False

    def follow(self, places: Sequence[Place], watch: bool) -> list[Followed]:
        if self.is_away:
            raise RedisUnavailable("away")
        self.looks.append(([place.job_id for place in places], watch))
        return [Followed(RUNNING, 0, place.job_id, self._since(place)) for place in places]

    def _since(self, place: Place) -> list[tuple[str, str]]:
        entries = self.texts.get(place.job_id, [])
        ids = [entry for entry, _ in entries]
        return entries[ids.index(place.last) + 1 :] if place.last else entries


def streams_of(queue: Queue) -> Streams:
    return Streams("redis://127.0.0.1:1", ["moved"], queue.follow, lambda ids: [None for _ in ids])


def test_all_who_read_a_job_share_one_feed_and_one_look() -> None:
    queue = Queue()
    streams = streams_of(queue)
    with streams.reading("j") as (feed, _), streams.reading("j") as (same, changed), streams.reading("k"):
        assert feed is same
        wait_until(lambda: len(queue.looks) and not feed.is_new, 5)
        assert all(watch for _, watch in queue.looks), "the first look has the workers tell at every step"
        queue.texts["j"] = [("1-1", "a")]
        changed.clear()
        streams.note("moved", "j other")
        assert changed.wait(5)
        assert feed.view.text == "a"
    streams.drain()


def test_a_look_that_fails_is_made_again_without_a_message() -> None:
    queue = Queue()
    streams = streams_of(queue)
    queue.is_away = True
    with streams.reading("j") as (feed, _):
        wait_until(lambda: not streams._changed, 5)
        queue.texts["j"] = [("1-1", "a")]
        queue.is_away = False
        wait_until(lambda: feed.view.text == "a", 10)
    streams.drain()
