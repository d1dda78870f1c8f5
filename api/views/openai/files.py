"""`/v1/files`: what batches read and write."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Literal

import gevent
from flask import Response, request
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.datastructures import ContentRange

from api.current import owner, services
from api.errors import FileInUse, FileMissing, RangeNotSatisfiable
from api.http.blueprints import OpenAIBlueprint
from api.openai.file_schemas import DeletedFile, FileList, FileObject, file_object
from api.openai.pages import page_fields
from api.openai.schemas import OpenAIError
from api.presenter import json_response
from api.upload import UploadForm
from promptq.contract.batches import Part
from promptq.contract.files import FileRecord, Purpose, part_path, path_of
from promptq.queue.listing import Order
from promptq.runtime import failpoints
from promptq.storage.storage import Objects

_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 429, 503), OpenAIError)
_BYTES = {"description": "The bytes.", "content": {"application/octet-stream": {"schema": {"type": "string"}}}}

blueprint = OpenAIBlueprint("openai_files", __name__, tag="OpenAI", url_prefix="/v1/files")


class FilePath(BaseModel):
    """A file's id."""

    id: str


class FilesQuery(BaseModel):
    """Query of `GET /v1/files`."""

    model_config = ConfigDict(extra="allow")

    after: str = Field("", description="Goes on behind this file.")
    limit: int = Field(1000, ge=1, le=10_000)
    order: Order = "desc"
    purpose: Literal[Purpose] | None = None


@blueprint.post("", responses=_ERRORS | {200: FileObject, 413: OpenAIError})
def create_file(form: UploadForm) -> Response:
    """Upload a file of lines for a batch

    It is checked as it comes; what is wrong with it shows in `status_details`, and fails a batch of it.
    """
    failpoints.hit("api.file_stored")
    return json_response(file_object(services().files.put(form.record, form.seconds)))


@blueprint.get("", responses=_ERRORS | {200: FileList})
def list_files(query: FilesQuery) -> Response:
    """Your files, the latest first"""
    found = (
        record
        for record in services().files.of(owner(), query.after, query.order)
        if query.purpose in (None, record.purpose)
    )
    return json_response(FileList(**page_fields(map(file_object, found), query.limit)))


@blueprint.get("/<id>", responses=_ERRORS | {200: FileObject})
def read_file(path: FilePath) -> Response:
    """What is known of a file"""
    return json_response(file_object(find(path.id)))


@blueprint.delete("/<id>", responses=_ERRORS | {200: DeletedFile})
def delete_file(path: FilePath) -> Response:
    """Delete a file; not while a batch needs it"""
    record, parts = find(path.id), services()
    if not parts.files.drop(record):
        raise FileInUse(record.id)
    parts.storage.delete(path_of(record.id))
    return json_response(DeletedFile(id=record.id))


@blueprint.get("/<id>/content", responses=_ERRORS | {200: _BYTES, 206: _BYTES, 416: OpenAIError})
def read_file_content(path: FilePath) -> Response:
    """The bytes of a file, or a range of them

    What a batch has written so far can be read while it runs; such an answer has `X-Incomplete: true`.
    """
    record = find(path.id)
    pieces = services().batches.parts(record.batch_id) if record.batch_id else []
    places = _places(record, pieces)
    size = sum(length for _, length in places)
    start, stop = _range(size)
    is_part = (start, stop) != (0, size)
    status = HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK
    response = Response(_begun(_read(services().storage, places, start, stop)), status)
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Length"] = str(stop - start)
    response.headers["Accept-Ranges"] = "bytes"
    if is_part:
        response.headers["Content-Range"] = ContentRange("bytes", start, stop, size).to_header()
    if record.batch_id:
        response.headers["X-Incomplete"] = "true"
    return response


def find(file_id: str, param: str = "id") -> FileRecord:
    """A file that the caller may see.

    Raises:
        FileMissing: there is none, or it is another key's.
    """
    parts = services()
    record = parts.files.get(file_id) if file_id.isascii() and file_id.isprintable() else None
    if record is None or not parts.access.owns(owner(), record.owner):
        raise FileMissing(file_id, param)
    return record


def _places(record: FileRecord, pieces: list[Part]) -> list[tuple[str, int]]:
    """Where the bytes are, in order: paths in the storage, and how many bytes each has."""
    if not record.batch_id:
        return [(path_of(record.id), record.size)]
    kind = record.filename.rpartition("_")[2].partition(".")[0]
    return [(part_path(record.batch_id, piece.name), piece.size) for piece in pieces if piece.kind == kind]


def _range(size: int) -> tuple[int, int]:
    """The bytes that are asked for; all where the header is none that we know, as HTTP has it."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return 0, size
    found = asked.range_for_length(size)
    if found is None:
        raise RangeNotSatisfiable(f"The file has {size} bytes.", param="Range")
    return found


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, of which the first is there: what keeps it from being read is an error, and no answer that breaks."""
    first = next(chunks, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_of_them()


def _read(storage: Objects, places: list[tuple[str, int]], start: int, stop: int) -> Iterator[bytes]:
    before = 0
    for path, length in places:
        first, last = max(0, start - before), min(length, stop - before)
        before += length
        if first < last:
            for chunk in storage.read(path, first, last):
                yield chunk
                gevent.sleep(0)
