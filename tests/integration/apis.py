"""The API under gunicorn, as the tests start and ask it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from promptq.queue.embedded import EmbeddedServer
from tests.processes import free_port, start, wait_until


@dataclass
class Api:
    """A running API."""

    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=60, **options)

    def submit(self, prompt: str = "x", **headers: str) -> requests.Response:
        return self.call("POST", "/v1/jobs", json={"prompt": prompt, "cache": False}, headers=headers)

    def send(self, method: str, path: str, body: bytes = b"", **headers: Any) -> socket.socket:
        """A connection of its own, over which the request has been sent and the response not been read."""
        given: Mapping[str, Any] = {"Host": "localhost", "Content-Length": len(body), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return connection

    def lives(self) -> bool:
        assert self.process.poll() is None, "the API has ended"
        try:
            return self.call("GET", "/livez").ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def open_requests(self) -> int:
        """How many requests are being answered, beside the one that asks."""
        text = self.call("GET", "/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("promptq_http_requests_in_progress ")]
        return int(float(lines[0].rsplit(" ", 1)[1])) - 1 if lines else 0

    def metric_files(self) -> list[str]:
        return sorted(path.name for path in self.data_dir.glob("metrics/*/*.db"))


@contextmanager
def running(server: EmbeddedServer, data_dir: Path, api_processes: int = 2, **settings: Any) -> Iterator[Api]:
    port = free_port()
    process = start("api", server, api_port=port, data_dir=data_dir, api_processes=api_processes, **settings)
    api = Api(process, port, data_dir)
    try:
        wait_until(api.lives, 180, "the API")
        yield api
    finally:
        process.terminate()
        process.wait(90)


def waiting(api: Api, count: int) -> bool:
    """Whether so many requests are being answered, beside the one that asks."""
    return api.open_requests() >= count
