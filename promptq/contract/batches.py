"""What a batch is: its states, its window, its record, and the ids of its lines' jobs. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
ENDED: Final[frozenset[BatchStatus]] = frozenset({"failed", "completed", "expired", "cancelled"})
"""What changes no more, unless its failed lines are run again."""
RETRIED: Final[frozenset[BatchStatus]] = frozenset({"completed", "expired", "cancelled"})
Kind = Literal["output", "error"]
"""The two files that a batch writes: answers, and what has none."""
KINDS: Final[tuple[Kind, ...]] = ("output", "error")
TIMES: Final = (
    "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at",
    "cancelled_at",
)  # fmt: skip
LEAST_WINDOW_SECONDS: Final = 60
MOST_WINDOW_SECONDS: Final = 30 * 86_400
_WINDOW = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def window_seconds(window: str) -> int:
    """A completion window such as `24h`, `15m` or `7d`, in seconds.

    Raises:
        ValueError: it is none, or out of bounds.
    """
    if not (match := _WINDOW.fullmatch(window)):
        raise ValueError("give a number and s, m, h or d, as in 24h")
    seconds = int(match[1]) * _UNITS[match[2]]
    if not LEAST_WINDOW_SECONDS <= seconds <= MOST_WINDOW_SECONDS:
        raise ValueError("a window is between 60s and 30d")
    return seconds


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch as Redis has it. Times are seconds since the epoch, by the server's clock.

    Attributes:
        owner: name of the API key that it belongs to, or an empty string.
        closing: why it ends before all lines have run: expired, cancelled, or an empty string.
        redrive: which failed lines are to run again: a custom_id, `*` for all, or an empty string.
        round: how often lines were run again; part of the ids of jobs, so that an old failure is not found.
        output_file_id, error_file_id: chosen at the beginning; there is such a file once it has a line.
        keep_seconds: how long the files are kept after the end.
        model: what all lines name; empty where they differ.
        weight: the owner's share of a queue beside other owners, as of jobs.
        traceparent: of the request that made it (W3C Trace Context), or an empty string.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    window: str
    status: BatchStatus
    created_at: float
    times: Mapping[str, float] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: tuple[dict[str, Any], ...] = ()
    metadata: Mapping[str, str] | None = None
    closing: str = ""
    redrive: str = ""
    round: int = 0
    output_file_id: str = ""
    error_file_id: str = ""
    keep_seconds: int = 0
    model: str = ""
    weight: float = 1.0
    traceparent: str = ""

    @classmethod
    def from_hash(cls, batch_id: str, fields: Mapping[bytes, bytes]) -> BatchRecord:
        """Read the hash of `Keys.batch`."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            batch_id,
            text.get("owner", ""),
            text["endpoint"],
            text["input_file_id"],
            text["window"],
            text["status"],  # type: ignore[arg-type]
            float(text["created_at"]),
            {name: float(text[name]) for name in TIMES if name in text},
            int(text.get("total", 0)),
            int(text.get("completed", 0)),
            int(text.get("failed", 0)),
            tuple(json.loads(text.get("errors", "[]"))),
            json.loads(text.get("metadata", "null")),
            text.get("closing", ""),
            text.get("redrive", ""),
            int(text.get("round", 0)),
            text["output_file_id"],
            text["error_file_id"],
            int(text.get("keep_seconds", 0)),
            text.get("model", ""),
            float(text.get("weight", 1)),
            text.get("traceparent", ""),
        )

    @property
    def done(self) -> int:
        """Lines that are in the output or the error file."""
        return self.completed + self.failed

    @property
    def expires_at(self) -> float:
        """When its window ends."""
        return self.times["expires_at"]

    def file_id(self, kind: Kind) -> str:
        """The id of the file that it writes."""
        return self.output_file_id if kind == "output" else self.error_file_id


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a batch's output or error file, as an object of its own in the storage. `size`: in bytes."""

    kind: Kind
    name: str
    size: int
    lines: int

    def encode(self) -> str:
        """As the list of `Keys.batch_parts` has it."""
        return f"{self.kind} {self.name} {self.size} {self.lines}"

    @classmethod
    def decode(cls, raw: bytes) -> Part:
        """The inverse of `encode`."""
        kind, name, size, lines = raw.decode().split(" ")
        return cls("output" if kind == "output" else "error", name, int(size), int(lines))


def job_id(batch: BatchRecord, line: int, index: int) -> str:
    """The id of one job of a line: whoever submits it again finds the one that is there."""
    return f"{batch.id}-{batch.round}-{line}-{index}"


def request_id(batch: BatchRecord, line: int) -> str:
    """What OpenAI calls a line's request; the same whoever writes it."""
    return f"batch_req_{batch.id.removeprefix('batch_')}_{line}"


def is_done(done: bytes, line: int) -> bool:
    """Whether a line is in the output or the error file.

    Args:
        done: the bitmap of `Keys.batch_done`.
    """
    place = line >> 3
    return place < len(done) and bool(done[place] & (0x80 >> (line & 7)))
