"""A file as it comes: straight into the storage, checked line by line, never whole in memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Annotated, Any, Literal, Self, TypeVar, cast

import gevent
from flask import request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from api.current import owner, services
from api.errors import BodyTooLarge, SlowBody, UnreadableBody, UnsupportedEncoding
from api.openai.file_schemas import LEAST_KEPT, MOST_KEPT
from promptq.contract.admission import invalid_request
from promptq.contract.batch_lines import LineCheck
from promptq.contract.errors import InvalidRequest
from promptq.contract.files import FileRecord, path_of
from promptq.openai.calls import ENDPOINTS
from promptq.storage.storage import Sink

Form = TypeVar("Form", bound=BaseModel)
FORM_BYTES = 512 * 1024
"""For all that a form has beside the file; and what the parser may hold of that, which it reads in chunks of 64 kB."""
MOST_PARTS = 32
MAX_NAME_CHARS = 255


class UploadForm(BaseModel):
    """What comes with a file."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="JSON lines: `custom_id`, `method`, `url`, `body`."
    )
    purpose: Literal["batch"]
    anchor: Literal["created_at"] | None = Field(None, alias="expires_after[anchor]")
    seconds: Annotated[int, Field(ge=LEAST_KEPT, le=MOST_KEPT)] | None = Field(None, alias="expires_after[seconds]")

    _record: FileRecord = PrivateAttr()

    @property
    def record(self) -> FileRecord:
        """Of the file, as it was received."""
        return self._record

    @classmethod
    def receive(cls) -> Self:
        """Read the present request; the file goes to the storage as it comes.

        Raises:
            PromptqError: something does not fit, or did not come; nothing is stored then.
        """
        form, record = _receive(cls)
        form._record = record
        return form


@dataclass(slots=True)
class _Incoming:
    """What the form's parser writes a file into."""

    sink: Sink
    check: LineCheck
    limit: int
    size: int = 0
    filename: str = ""

    def write(self, data: bytes) -> int:
        """The next bytes."""
        self.size += len(data)
        if self.size > self.limit:
            raise _too_large()
        self.check.feed(data)
        self.sink.write(data)
        gevent.sleep(0)  # a fast client is not to keep others waiting
        return len(data)

    def seek(self, _place: int) -> int:
        """The parser's last word; nobody reads it again from here."""
        return 0


def _receive(form: type[Form]) -> tuple[Form, FileRecord]:
    """Store the file of the present request, and check what comes beside it; give that, and a record of the file.

    Args:
        form: what there must be beside the file, and the field `file` itself.

    Raises:
        PromptqError: something does not fit, or did not come; nothing is stored then.
    """
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise UnsupportedEncoding("Send the body uncompressed.", param="Content-Encoding")
    parts = services()
    settings = parts.settings
    request.max_content_length = settings.max_file_bytes + FORM_BYTES
    record = FileRecord(f"file-{secrets.token_hex(16)}", owner(), "", "batch", 0)
    parts.files.expect(record.id)
    with parts.storage.writing(path_of(record.id)) as sink:
        check = LineCheck(ENDPOINTS, settings.max_batch_lines)
        incoming = _Incoming(sink, check, settings.max_file_bytes)
        fields = _parse(incoming)
        check.end()
        fields.pop("file", None)  # a field of that name is no file
        read = _validated(form, fields | ({"file": record.id} if incoming.filename else {}))
    return read, replace(
        record, filename=incoming.filename[:MAX_NAME_CHARS], size=incoming.size, lines=check.lines,
        first_lines=check.first_lines, errors=tuple(error.as_dict() for error in check.errors),
        model=check.model,
    )  # fmt: skip


def _parse(incoming: _Incoming) -> dict[str, str]:
    """Read the form, its file into `incoming`; give its other fields."""

    def begin_file(
        total_content_length: int | None,  # noqa: ARG001  # werkzeug's names
        content_type: str | None,  # noqa: ARG001
        filename: str | None,
        content_length: int | None = None,  # noqa: ARG001
    ) -> IO[bytes]:
        if incoming.filename:
            raise InvalidRequest("One file at a time.", param="file")
        incoming.filename = filename or "file"
        return cast(IO[bytes], incoming)

    parser = FormDataParser(
        begin_file, max_form_memory_size=FORM_BYTES, max_content_length=request.max_content_length,
        max_form_parts=MOST_PARTS, silent=False,
    )  # fmt: skip
    with _readable():
        _, form, files = parser.parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    if set(files) - {"file"}:
        raise InvalidRequest("The file's field is called file.", param="file")
    return form.to_dict()


@contextmanager
def _readable() -> Iterator[None]:
    """What may go wrong with a body, as our own errors; the storage's own pass."""
    try:
        yield
    except RequestEntityTooLarge:
        raise _too_large() from None
    except (ClientDisconnected, ParseException, TimeoutError) as error:
        if isinstance(error.__context__ or error, TimeoutError):
            raise SlowBody("The body has not arrived in time.", param="body") from error
        raise UnreadableBody("The body is incomplete, or its chunks are malformed.", param="body") from error
    except ValueError:
        raise UnreadableBody("The form cannot be read: it must be multipart/form-data.", param="body") from None


def _validated(form: type[Form], fields: dict[str, Any]) -> Form:
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error) from None


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"A file has at most {services().settings.max_file_bytes} bytes.", param="file")
