"""Receivers that answer, refuse, hang, reset and redirect at random, and keep what came and what they took."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import openai

MOODS: Final = {"204": 62, "500": 12, "503": 5, "302": 8, "reset": 8, "garbage": 3, "hang": 2}
"""How often each, of a hundred."""
PATIENCE: Final = 6
"""Failures of one event at one destination after which it is taken."""
GONE_SHARE: Final = 0.03
HANG_SECONDS: Final = 3.0


@dataclass
class Log:
    """What all receivers have seen.

    Attributes:
        secrets: by destination, what its events must be signed with.
        gone: destinations that answer 410 now and then.
        taken: by destination and what an event is about, how often it was answered 204.
        ids: by what an event is about, the ids under which it came.
        wrong: what should not have come.
    """

    seed: int
    secrets: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    ids: dict[str, set[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    moods: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(self.seed)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._client = openai.OpenAI(api_key="x")

    def receive(self, destination: str, headers: dict[str, str], body: str) -> str:
        """Check an event as OpenAI's client does, and say how to answer it."""
        try:
            event: Any = self._client.webhooks.unwrap(body, headers, secret=self.secrets[destination])
        except Exception as error:
            self.wrong.append(f"{destination}: {type(error).__name__}: {error}")
            return "204"
        if event.id != headers["webhook-id"]:
            self.wrong.append(f"{destination}: {event.id} came as {headers['webhook-id']}")
        with self._lock:
            self.ids.setdefault(event.data.id, set()).add(event.id)
            mood = self._mood(destination, event.data.id)
            self.moods[mood] += 1
            return mood

    def answered(self, destination: str, subject: str) -> None:
        """It was told that it is there."""
        with self._lock:
            self.taken[destination, subject] += 1

    def _mood(self, destination: str, subject: str) -> str:
        if self._failures[destination, subject] >= PATIENCE:
            return "204"
        is_gone = destination in self.gone and self._random.random() < GONE_SHARE
        mood = "410" if is_gone else self._random.choices(list(MOODS), list(MOODS.values()))[0]
        self._failures[destination, subject] += mood != "204"
        return mood


class Receiver(ThreadingHTTPServer):
    """One address. A destination is the first part of the path, and belongs to nobody's address in particular.

    Args:
        inside: where redirects lead.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, log: Log, inside: str) -> None:
        self.log, self.inside = log, inside
        self.closed = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_: Any) -> None:
        """Whoever is killed breaks off; that is no error here."""

    def close(self) -> None:
        """Take no more."""
        self.closed.set()
        self.shutdown()
        self.server_close()


class Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        destination = self.path.split("/")[1]
        mood = self.server.log.receive(destination, headers, body)
        if mood == "hang":
            self.server.closed.wait(HANG_SECONDS)
        elif mood == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif mood == "garbage":
            self.wfile.write(b"what is it?\r\n\r\n")
        else:
            self._answer(int(mood))
            if mood == "204":
                self.server.log.answered(destination, _subject(body))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Location", self.server.inside)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Trap:
    """Listens at an address that nothing may be sent to.

    Attributes:
        connections: how many came.
    """

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0))
        self.port = int(self._socket.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                connection.close()

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _subject(body: str) -> str:
    return str(json.loads(body)["data"]["id"])
