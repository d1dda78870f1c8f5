"""What a file is: its record, and where the storage has it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Purpose = Literal["batch", "batch_output"]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as Redis has it. Times are seconds since the epoch, by the server's clock.

    Attributes:
        owner: name of the API key that it belongs to, or an empty string.
        size: in bytes.
        expires_at: None: it is kept until it is deleted.
        lines: of a batch's input.
        first_lines: of a batch's input, by endpoint the number of the first line that calls it.
        errors: of a batch's input, what is wrong with it.
        model: of a batch's input, what all its lines name; empty where they differ.
        batch_id: of a file that a batch writes: which; empty once it is written as a whole.
        uses: batches that have not ended, and read it.
    """

    id: str
    owner: str
    filename: str
    purpose: Purpose
    size: int
    created_at: float = 0.0
    expires_at: float | None = None
    lines: int = 0
    first_lines: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[dict[str, Any], ...] = ()
    batch_id: str = ""
    uses: int = 0
    model: str = ""

    @property
    def in_use(self) -> bool:
        """Whether a batch that has not ended reads or writes it."""
        return bool(self.batch_id) or self.uses > 0

    @classmethod
    def from_hash(cls, file_id: str, fields: Mapping[bytes, bytes]) -> FileRecord:
        """Read the hash of `Keys.file`."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            file_id,
            text.get("owner", ""),
            text["filename"],
            text["purpose"],  # type: ignore[arg-type]
            int(text["bytes"]),
            float(text["created_at"]),
            float(text["expires_at"]) if text.get("expires_at") else None,
            int(text.get("lines", 0)),
            json.loads(text.get("first_lines", "{}")),
            tuple(json.loads(text.get("errors", "[]"))),
            text.get("batch_id", ""),
            int(text.get("uses", 0)),
            text.get("model", ""),
        )

    def as_hash(self) -> dict[str, str | int]:
        """What a new record's hash has, its times aside."""
        return {
            "owner": self.owner,
            "filename": self.filename,
            "purpose": self.purpose,
            "bytes": self.size,
            "lines": self.lines,
            "first_lines": json.dumps(dict(self.first_lines)),
            "errors": json.dumps(list(self.errors)),
            "model": self.model,
        }


def path_of(file_id: str) -> str:
    """Where the storage has a whole file."""
    return f"files/{file_id}"


def part_path(batch_id: str, name: str) -> str:
    """Where the storage has a part of what a batch writes."""
    return f"batches/{batch_id}/{name}"
