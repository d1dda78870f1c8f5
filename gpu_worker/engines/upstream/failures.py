"""What went wrong with a request to the server, and what follows for its job. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from pydantic_core import from_json

MESSAGE_CHARS: Final = 500


class Kind(StrEnum):
    """What follows for the job.

    REQUEST: it fails, the request is at fault.
    REFUSED: it was not begun, and no other would be: it goes back unharmed, and the server is left alone for a while.
    FAILED: it was sent, and came to nothing before its first text; perhaps it is at fault, perhaps the server.
    LOST: its text broke off: the attempt counts.
    """

    REQUEST = "request"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request.

    Attributes:
        message: for people.
        type: of the job's error, where it fails.
        retry_after: seconds for which the server asked to be left alone; None: it did not.
        is_busy: it has too much to do, and would take less.
        param: the field that it is about, where the server said so.
    """

    kind: Kind
    message: str
    type: str = "invalid_request"
    retry_after: float | None = None
    is_busy: bool = False
    param: str = ""

    def naming(self, field: str) -> str:
        """The message, with the field's name before it where it is about that one and does not begin so."""
        singular = field.removesuffix("s")
        is_about = self.param == field or singular in self.message.lower()
        return f"{field}: {self.message}" if is_about and not self.message.startswith(f"{field}: ") else self.message


class StreamFault(Exception):
    """What came over a stream is an error, or cannot be read.

    Attributes:
        failure: what it means before the first text; behind it, a text that broke off.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


_BUSY: Final = {HTTPStatus.TOO_MANY_REQUESTS}
_UNAVAILABLE: Final = {
    HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT, 529,
}  # fmt: skip
_MISCONFIGURED: Final = {
    HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
}  # fmt: skip
"""Wrong for every job: the key, the account, the address or the model's name."""
_MISCONFIGURED_CODES: Final = {"model_not_found", "invalid_api_key", "insufficient_quota"}
_TOO_LONG_CODES: Final = {"context_length_exceeded", "prompt_too_long"}
_TOO_LONG_WORDS: Final = re.compile(r"context (length|size|window)|tokens; the context is", re.IGNORECASE)
"""vLLM, SGLang, llama.cpp and, before a job begins, promptq have no code of their own for it."""


def of_status(status: int, body: bytes, retry_after: float | None = None) -> Failure:
    """What an answer other than 200 means.

    Args:
        body: of it, or the beginning of that.
    """
    said = _Said.read(body)
    message = f"HTTP {status}: {said.message}" if said.message else f"HTTP {status}"
    if status in _BUSY and said.code not in _MISCONFIGURED_CODES:
        return Failure(Kind.REFUSED, message, retry_after=retry_after, is_busy=True)
    is_elsewhere = status < HTTPStatus.BAD_REQUEST or status in (*_BUSY, *_UNAVAILABLE, *_MISCONFIGURED)
    if is_elsewhere or said.code in _MISCONFIGURED_CODES:
        return Failure(Kind.REFUSED, message, retry_after=retry_after)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(Kind.FAILED, message, retry_after=retry_after)
    return Failure(Kind.REQUEST, said.message or message, said.type, param=said.param)


def of_stream_error(error: Any) -> Failure:
    """What an error means that came in place of a piece of a stream, whose status was 200."""
    said = _Said.of(error)
    message = f"the server said in its stream: {said.message or 'error'}"
    is_request = said.kind == "invalid_request_error" or said.code in ("400", "422", *_TOO_LONG_CODES)
    if is_request:
        return Failure(Kind.REQUEST, said.message, said.type, param=said.param)
    return Failure(Kind.FAILED, message)


def retry_after(seconds: str | None, milliseconds: str | None) -> float | None:
    """What the headers `Retry-After` and `retry-after-ms` ask for, in seconds. A date is not understood."""
    for text, unit in ((milliseconds, 1000.0), (seconds, 1.0)):
        try:
            value = float(text) / unit if text else -1.0
        except ValueError:
            continue
        if 0 <= value < float("inf"):
            return value
    return None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a server said about an error, in OpenAI's form or in one like it."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str = ""

    @property
    def type(self) -> str:
        is_too_long = self.code in _TOO_LONG_CODES or _TOO_LONG_WORDS.search(self.message)
        return "prompt_too_long" if is_too_long else "invalid_request"

    @classmethod
    def read(cls, body: bytes) -> _Said:
        try:
            whole = from_json(body)
        except ValueError:
            return cls(_short(body.decode(errors="replace")))
        said = whole.get("error", whole) if isinstance(whole, dict) else whole
        return cls.of(said)

    @classmethod
    def of(cls, error: Any) -> _Said:
        if not isinstance(error, dict):
            return cls(_short(str(error)))
        message = error.get("message") or error.get("detail") or ""
        names = (str(error.get(name) or "") for name in ("code", "type", "param"))
        return cls(_short(str(message)), *names)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MESSAGE_CHARS else f"{words[:MESSAGE_CHARS]} …"
