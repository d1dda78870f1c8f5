"""Clients that read streams, and the jobs that they read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.fakes import TimedStore, submit
from tests.integration.apis import Api

WORDS = " ".join(f"wörd{number}" for number in range(30))


@dataclass
class Stream:
    """What a client got: its events, and the text that its deltas add up to."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    text: str = ""

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def add(self, block: str) -> None:
        if block.startswith(":"):
            self.comments.append(block)
            return
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = json.loads(lines["data"])
        self.events.append((lines["event"], data))
        self.text = "" if lines["event"] == "reset" else self.text + data.get("text", "")
        self.ids += [lines["id"]] if "id" in lines else []

    def add_all(self, came: Iterator[str]) -> None:
        for block in came:
            self.add(block)


def blocks(response: requests.Response) -> Iterator[str]:
    """The events of a response as they come."""
    held = ""
    for chunk in response.iter_content(None):
        held += chunk.decode()
        while "\n\n" in held:
            block, held = held.split("\n\n", 1)
            yield block


def listen(api: Api, job_id: str, after: str | None = None, until: int = 10**9, **headers: str) -> Stream:
    """Read a job's events, to the end or until the text has so many characters."""
    query = "" if after is None else f"?after={after}"
    response = api.call("GET", f"/v1/jobs/{job_id}/events{query}", headers=headers, stream=True)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    stream = Stream()
    with response:
        for block in blocks(response):
            stream.add(block)
            if len(stream.text) >= until:
                break
    return stream


def put(store: TimedStore, prompt: str = WORDS, **fields: object) -> str:
    return submit(store, prompt, now=time.time(), **{"cache": False, **fields}).job.id
