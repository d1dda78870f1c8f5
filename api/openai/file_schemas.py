"""OpenAI's forms of files and batches, as the OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from promptq.contract.batches import TIMES, BatchRecord, BatchStatus, window_seconds
from promptq.contract.files import FileRecord, Purpose
from promptq.openai.body import Body

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
LEAST_KEPT, MOST_KEPT = 3600, 2_592_000
"""Bounds of `expires_after`, in seconds, as OpenAI has them."""


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["processed", "error"] = Field(description="error: a batch of it would fail.")
    status_details: str | None = Field(description="What is wrong with it, the first thing.")


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class KeptFor(Body):
    """How long what a batch writes is kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=LEAST_KEPT, le=MOST_KEPT)


def _window(text: Any) -> Any:
    if isinstance(text, str):
        window_seconds(text)
    return text


_Key = Annotated[str, Field(min_length=1, max_length=64)]
_Value = Annotated[str, Field(max_length=512)]


class CreateBatch(Body):
    """Lines of a file that are to be run."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"input_file_id": "file-0", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        }
    )

    input_file_id: str = Field(min_length=1, max_length=128)
    endpoint: Endpoint
    completion_window: Annotated[
        str, BeforeValidator(_window), Field(pattern="^[1-9][0-9]{0,6}[smhd]$", description="60s to 30d; as 24h, 15m.")
    ]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None
    output_expires_after: KeptFor | None = None


class BatchErrors(BaseModel):
    """What keeps a batch from being run."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class RequestCounts(BaseModel):
    """Lines."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    model: str | None = Field(description="What all lines name; null where they differ.")
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_object(record: FileRecord) -> FileObject:
    """A file as OpenAI shows it."""
    first = record.errors[0] if record.errors else None
    where = f"line {first['line']}: " if first and first["line"] else ""
    return FileObject(
        id=record.id,
        bytes=record.size,
        created_at=int(record.created_at),
        expires_at=None if record.expires_at is None else int(record.expires_at),
        filename=record.filename,
        purpose=record.purpose,
        status="error" if first else "processed",
        status_details=f"{where}{first['message']}" if first else None,
    )


def batch_object(record: BatchRecord) -> BatchObject:
    """A batch as OpenAI shows it."""
    times = {f"{name}": int(at) for name, at in record.times.items()}
    return BatchObject(
        id=record.id,
        endpoint=record.endpoint,
        errors=BatchErrors(data=list(record.errors)) if record.errors else None,
        input_file_id=record.input_file_id,
        completion_window=record.window,
        model=record.model or None,
        status=record.status,
        output_file_id=record.output_file_id if record.completed else None,
        error_file_id=record.error_file_id if record.failed else None,
        created_at=int(record.created_at),
        request_counts=RequestCounts(total=record.total, completed=record.completed, failed=record.failed),
        metadata=dict(record.metadata) if record.metadata is not None else None,
        **{name: times.get(name) for name in TIMES},
    )
