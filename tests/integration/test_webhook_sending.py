"""One try at receivers that answer, hang, redirect and break off; and addresses that nothing may be sent to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dispatcher.deliveries.egress import CheckedBackend
from dispatcher.deliveries.plan import Answer
from dispatcher.deliveries.sender import send
from promptq.contract.addresses import is_public
from promptq.contract.webhooks import body_of, signed_headers

BODY = body_of("evt_1", "job.succeeded", 1_800_000_000, "job")
HEADERS = signed_headers("evt_1", 1_800_000_000, BODY, ["whsec_c2VjcmV0"])
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """A socket that says what it is told to, and keeps what came."""

    def __init__(self, replies: Sequence[bytes], pause: float = 0.0, ends: bool = True) -> None:
        self.requests: list[bytes] = []
        self._replies, self._pause, self._ends = replies, pause, ends
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=1"

    def close(self) -> None:
        # An accept that is under way goes on after a close of its socket; a shutdown ends it.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        came = b""
        while BODY not in came and (more := connection.recv(65536)):
            came += more
        self.requests.append(came)
        for reply in self._replies:
            connection.sendall(reply)
            time.sleep(self._pause)
        if not self._ends:
            connection.recv(1)


@contextmanager
def receiving(*replies: bytes, pause: float = 0.0, ends: bool = True) -> Iterator[Receiver]:
    receiver = Receiver(replies, pause, ends)
    try:
        yield receiver
    finally:
        receiver.close()


def inside(seconds: float = 5.0) -> CheckedBackend:
    return CheckedBackend(seconds, allows_private=True)


def tried(receiver: Receiver, backend: CheckedBackend | None = None) -> Answer:
    return send(receiver.url, HEADERS, BODY, backend or inside())


def test_an_event_arrives_as_it_was_signed() -> None:
    with receiving(OK) as receiver:
        assert tried(receiver) == Answer(204)
        head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert body == BODY
    lines = head.decode().lower().splitlines()
    assert lines[0] == "post /hook?a=1 http/1.1"
    assert set(lines) > {"webhook-id: evt_1", "content-type: application/json", f"content-length: {len(BODY)}"}
    assert any(line.startswith("webhook-signature: v1,") for line in lines)


@pytest.mark.parametrize(
    ("asks", "seconds"), [("120", 120), ("-5", 0), ("soon", 0), ("9" * 400, 999_999_999), ("date", 60)]
)
def test_a_failure_says_when_to_come_back(asks: str, seconds: float) -> None:
    asks = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True) if asks == "date" else asks
    with receiving(f"HTTP/1.1 503 Busy\r\nRetry-After: {asks}\r\nContent-Length: 0\r\n\r\n".encode()) as receiver:
        answer = tried(receiver)
    assert answer.status == 503
    assert answer.retry_after == pytest.approx(seconds, abs=5)


def test_a_redirect_is_not_followed() -> None:
    with receiving(OK) as other:
        there = f"HTTP/1.1 302 Found\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with receiving(there) as receiver:
            assert tried(receiver) == Answer(302)
        assert other.requests == []


def test_what_breaks_off_or_speaks_nonsense_is_a_failure() -> None:
    for replies in ((), (b"HTTP/1.1 2",), (b"what\r\n\r\n",)):
        with receiving(*replies) as receiver:
            assert tried(receiver).trouble.startswith("No response: ")
    assert send("http://127.0.0.1:1/", HEADERS, BODY, inside()).trouble == "No response: ConnectError."


def test_a_receiver_that_hangs_or_drips_has_its_seconds_and_no_more() -> None:
    dripping = [bytes([byte]) for byte in OK]
    for replies, pause in (((), 0.0), (dripping, 0.15)):
        with receiving(*replies, pause=pause, ends=False) as receiver:
            began = time.monotonic()
            assert tried(receiver, inside(0.4)).trouble == "No response within 0.4 s."
            assert time.monotonic() - began < 3


def test_an_endless_body_is_not_read() -> None:
    with receiving(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nmore", ends=False) as receiver:
        began = time.monotonic()
        assert tried(receiver) == Answer(200)
        assert time.monotonic() - began < 3


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
            "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
            "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
            "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
        ],
    )  # fmt: skip
    def test_nothing_is_sent_inside(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
    def test_the_open_internet_is_allowed(self, address: str) -> None:
        assert is_public(address)

    def test_a_name_that_means_an_inner_address_is_refused_before_a_connection(self) -> None:
        with receiving(OK) as receiver:
            for found in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]):
                backend = CheckedBackend(5, resolve=lambda _host, _port, found=found: found)
                answer = send(f"http://evil.example:{receiver.port}/", HEADERS, BODY, backend)
                assert answer.trouble == "The address is not allowed: an address that is not public."
            assert receiver.requests == []

    def test_a_name_that_changes_its_meaning_is_looked_up_once(self) -> None:
        """DNS rebinding: what is connected to is what was checked, here an address at which nobody listens."""
        meanings = iter([["192.0.2.1"], ["127.0.0.1"]])
        asked: list[str] = []

        def resolve(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            return next(meanings)

        with receiving(OK) as receiver:
            backend = CheckedBackend(0.3, allows_private=True, resolve=resolve)
            answer = send(f"http://evil.example:{receiver.port}/", HEADERS, BODY, backend)
            assert answer.status == 0
            assert (asked, receiver.requests) == (["evil.example"], [])

    def test_a_look_up_that_takes_long_is_within_the_seconds_of_the_try(self) -> None:
        waits = threading.Event()

        def resolve(_host: str, _port: int) -> Sequence[str]:
            waits.wait(30)
            return ["127.0.0.1"]

        began = time.monotonic()
        answer = send("http://slow.example/", HEADERS, BODY, CheckedBackend(0.3, allows_private=True, resolve=resolve))
        waits.set()
        assert answer.trouble == "No response within 0.3 s."
        assert time.monotonic() - began < 3

    def test_the_next_address_of_a_name_is_tried(self) -> None:
        with receiving(OK) as receiver:
            backend = CheckedBackend(5, allows_private=True, resolve=lambda _h, _p: ["127.0.0.2", "127.0.0.1"])
            assert send(f"http://x.example:{receiver.port}/", HEADERS, BODY, backend) == Answer(204)
