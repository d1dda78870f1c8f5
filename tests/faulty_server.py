"""A server that answers each request as it is told: for faults that no real server makes on demand."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Act = Callable[[socket.socket], None]
"""Answers one request, over its connection."""
HEAD = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nConnection: close\r\n%s\r\n"


def stream(*events: str | dict[str, Any], then: Act | None = None) -> Act:
    """An event stream with these pieces of data, and what comes then; else the connection ends in order."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD % (200, b"text/event-stream", b""))
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            connection.sendall(f"data: {data}\n\n".encode())
        if then:
            then(connection)

    return act


def status(code: int, body: str = "", **headers: str) -> Act:
    """An answer that is no stream."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD % (code, b"application/json", lines.encode()) + body.encode())

    return act


def raw(data: bytes) -> Act:
    """These bytes."""
    return lambda connection: connection.sendall(data)


def reset(connection: socket.socket) -> None:
    """An RST in place of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(connection: socket.socket) -> None:
    """Nothing, until the client goes."""
    with suppress(OSError):
        connection.recv(1)


def text(words: str, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    """A chunk of a completion."""
    return {"choices": [{"index": 0, "text": words, "finish_reason": finish, **choice}]}


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """The chunk that counts."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"choices": [], "usage": counts | {"prompt_tokens_details": {"cached_tokens": cached}}}


DONE = "[DONE]"
GOOD = stream(text("well"), text(" done", "stop"), usage(3, 2), DONE)


class FaultyServer:
    """Answers with the acts that are left, in their order, and then always with the last one.

    Attributes:
        bodies: of the requests that came.
    """

    def __init__(self, acts: Iterable[Act]) -> None:
        self.acts = deque(acts)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    outer.answer(self.rfile, self.connection)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, lines: Any, connection: socket.socket) -> None:
        head = list(iter(lambda: lines.readline().decode().strip(), ""))
        if not head:
            return
        length = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length"))
        self.headers.append("\n".join(head))
        self.bodies.append(json.loads(lines.read(length)))
        act = self.acts.popleft() if len(self.acts) > 1 else self.acts[0]
        act(connection)


@contextmanager
def faulty(*acts: Act) -> Iterator[FaultyServer]:
    server = FaultyServer(acts)
    thread = threading.Thread(target=server.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join()
