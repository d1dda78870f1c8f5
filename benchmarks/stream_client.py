"""`python -m benchmarks.stream_client HOST PORT < ids`: reads these jobs' events, and prints how late words came.

A process of its own, with raw sockets, so that it costs little beside what it measures. It prints `ready` when every
stream has its headers, then one JSON object: seconds from step to here of each word, and what was wrong.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

MOMENT = re.compile(rb"1[0-9]{9}\.[0-9]{6}")
END = b"event: end"


class Stream:
    """One open stream."""

    def __init__(self, host: str, port: int, job_id: str) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.began = False
        self.words = 0
        self.is_over = False
        self.held = b""

    def read(self, late: list[float]) -> None:
        """Take what has come. An event whose end is still to come is held back."""
        came = self.socket.recv(1 << 16)
        now = time.time()
        self.began, self.is_over = True, not came
        *events, self.held = (self.held + came).split(b"\n\n")
        for event in events:
            if END in event:
                self.is_over = True
                return
            moments = MOMENT.findall(event)
            self.words += len(moments)
            late += [now - float(moment) for moment in moments]


def main(host: str, port: int) -> None:
    streams = [Stream(host, port, line.strip()) for line in sys.stdin]
    selector = selectors.DefaultSelector()
    for stream in streams:
        selector.register(stream.socket, selectors.EVENT_READ, stream)
    late: list[float] = []
    said_ready = False
    while selector.get_map():
        for key, _ in selector.select(60):
            key.data.read(late)
            if key.data.is_over:
                selector.unregister(key.fileobj)
        if not said_ready and all(stream.began for stream in streams):
            said_ready = True
            print("ready", flush=True)
    print(json.dumps({"late": late, "words": [stream.words for stream in streams]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
