"""`/v1/batches`: many calls of one endpoint, which the dispatcher runs."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

import gevent
from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from api.current import owner, services
from api.errors import BatchNotFound, BatchNotReady, FileMissing
from api.http.blueprints import OpenAIBlueprint
from api.openai.file_schemas import BatchList, BatchObject, CreateBatch, batch_object
from api.openai.pages import page_fields
from api.openai.schemas import OpenAIError
from api.parameters import KeyHeader
from api.presenter import json_response
from api.tracing import submitting
from api.views.openai import files
from promptq.contract.batches import RETRIED, BatchRecord
from promptq.contract.errors import IdempotencyConflict, InvalidRequest
from promptq.contract.files import path_of
from promptq.runtime import failpoints

ALL = "*"
_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 413, 429, 503), OpenAIError)
_FOUND: ResponseDict = _ERRORS | {200: BatchObject}

blueprint = OpenAIBlueprint("openai_batches", __name__, tag="OpenAI", url_prefix="/v1/batches")


class BatchPath(BaseModel):
    """A batch's id."""

    id: str


class BatchesQuery(BaseModel):
    """Query of `GET /v1/batches`."""

    model_config = ConfigDict(extra="allow")

    after: str = Field("", description="Goes on behind this batch.")
    limit: int = Field(20, ge=1, le=100)


class RetryQuery(BaseModel):
    """Query of `POST /v1/batches/{id}/retry`."""

    model_config = ConfigDict(extra="forbid")

    custom_id: str | None = Field(
        None,
        min_length=1,
        description="Of the one line that is run again; else all.",
    )


@blueprint.post("", responses=_FOUND)
def create_batch(header: KeyHeader, body: CreateBatch) -> Response:
    """Run the lines of a file"""
    file = files.find(body.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest("The file was not uploaded for a batch.", param="input_file_id")
    record = _record(body, header.idempotency_key, file.model)
    with submitting() as span:
        outcome = services().batches.create(replace(record, traceparent=span.traceparent))
        span.note({"promptq.batch.id": record.id})
    failpoints.hit("api.batch_created")
    if outcome == "missing":
        raise FileMissing(body.input_file_id, "input_file_id")
    made = find(record.id)
    if outcome == "known" and _asked(made) != _asked(record):
        raise IdempotencyConflict("The key came with another batch before.", param="Idempotency-Key")
    return json_response(batch_object(made))


@blueprint.get("", responses=_ERRORS | {200: BatchList})
def list_batches(query: BatchesQuery) -> Response:
    """Your batches, the latest first"""
    found = services().batches.of(owner(), query.after, at_once=query.limit + 1)
    return json_response(BatchList(**page_fields(map(batch_object, found), query.limit)))


@blueprint.get("/<id>", responses=_FOUND)
def read_batch(path: BatchPath) -> Response:
    """A batch as it stands"""
    return json_response(batch_object(find(path.id)))


@blueprint.post("/<id>/cancel", responses=_FOUND)
def cancel_batch(path: BatchPath) -> Response:
    """End a batch; what has run by then is kept"""
    record = find(path.id)
    outcome = services().batches.cancel(record.id)
    if outcome == "missing":
        raise BatchNotFound(path.id)
    if outcome != "done":
        raise BatchNotReady(f"The batch is {outcome}, and cannot be cancelled any more.", param="id")
    return json_response(batch_object(find(path.id)))


@blueprint.post("/<id>/retry", responses=_FOUND)
def retry_batch(path: BatchPath, query: RetryQuery) -> Response:
    """Run failed lines of an ended batch again (promptq's own)"""
    record = find(path.id)
    if query.custom_id is not None and not _has_failed(record, query.custom_id):
        raise InvalidRequest("No line with this custom_id is in the batch's error file.", param="custom_id")
    if services().batches.retry(record, query.custom_id or ALL) != "done":
        raise BatchNotReady(_why_not_again(record), param="id")
    return json_response(batch_object(find(path.id)))


def find(batch_id: str) -> BatchRecord:
    """A batch that the caller may see.

    Raises:
        BatchNotFound: there is none, or it is another key's.
    """
    parts = services()
    record = parts.batches.get(batch_id) if batch_id.isascii() and batch_id.isprintable() else None
    if record is None or not parts.access.owns(owner(), record.owner):
        raise BatchNotFound(batch_id)
    return record


def _record(body: CreateBatch, key: str, model: str) -> BatchRecord:
    """With a key of the client's the id follows from that, so that a repeat finds the batch."""
    digest = hashlib.sha256(f"{owner()}\0{key}".encode()).hexdigest()[:32]
    token = digest if key else secrets.token_hex(16)
    kept = body.output_expires_after.seconds if body.output_expires_after else services().settings.batch_ttl_seconds
    return BatchRecord(
        f"batch_{token}", owner(), body.endpoint, body.input_file_id, body.completion_window, "validating", 0.0,
        metadata=body.metadata, output_file_id=f"file-{secrets.token_hex(16)}",
        error_file_id=f"file-{secrets.token_hex(16)}", keep_seconds=kept, weight=services().access.weight(owner()),
        model=model,
    )  # fmt: skip


def _asked(record: BatchRecord) -> tuple[object, ...]:
    return record.endpoint, record.input_file_id, record.window, record.metadata


def _why_not_again(record: BatchRecord) -> str:
    """Of a batch whose lines were refused to be run again."""
    if record.status not in RETRIED:
        return f"The batch is {record.status}, and is retried once it is completed, expired or cancelled."
    if not record.failed:
        return "No line of the batch has failed."
    return f"The batch's input file '{record.input_file_id}' is gone."


def _has_failed(record: BatchRecord, custom_id: str) -> bool:
    for raw in services().storage.lines(path_of(record.error_file_id)):
        gevent.sleep(0)
        if from_json(raw)["custom_id"] == custom_id:
            return True
    return False
