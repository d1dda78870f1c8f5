"""A client that reads a job's text as it comes, through all that breaks, and holds it against what was promised."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import requests

TIMEOUT_SECONDS = 20.0
"""Longer than the silence between two keep-alives."""


@dataclass
class Reading:
    """What was read so far.

    Attributes:
        position: the id of the last event.
        job: as the last event has it.
        connections: how often it was begun or taken up.
        wrong: gaps and repeats.
    """

    job_id: str
    text: str = ""
    position: str = ""
    job: dict[str, Any] | None = None
    connections: int = 0
    resets: int = 0
    wrong: list[str] = field(default_factory=list)

    def follow(self, session: requests.Session, url: str) -> str:
        """Read until the stream ends, well or not. Tells how."""
        headers = {"Last-Event-ID": self.position} if self.position else {}
        path = f"{url}/v1/jobs/{self.job_id}/events"
        with session.get(path, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            self.connections += 1
            held = ""
            for chunk in answer.iter_content(None):
                *blocks, held = (held + chunk.decode()).split("\n\n")
                for block in blocks:
                    self._take(block)
        return "whole" if self.job else "ended early"

    def _take(self, block: str) -> None:
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if not lines:
            return
        data = json.loads(lines["data"])
        self.position = lines.get("id", self.position)
        match lines["event"]:
            case "reset":
                self.text, self.resets = "", self.resets + 1
            case "delta":
                self.text += data["text"]
                if len(self.text) != int(self.position.partition("-")[0]):
                    self.wrong.append(f"at {self.position} there were {len(self.text)} characters")
            case "end":
                self.job = data["job"]

    def findings(self) -> list[str]:
        """What broke the promise, a line each. A job that was given up after its last worker died has no text."""
        output = (self.job or {}).get("output")
        if output and self.text != output["text"]:
            return [*self.wrong, f"read {self.text!r}, and the job has {output!r}"]
        return self.wrong
