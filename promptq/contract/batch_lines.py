"""The lines of a batch's input: each is read, and what is wrong with one is told by its number. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from pydantic_core import from_json

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""Editors of Windows put it before the first line; it is no part of that."""
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
MAX_LINE_BYTES: Final = 16 * 2**20
MAX_CUSTOM_ID: Final = 512
MAX_MODEL_CHARS: Final = 128
"""Of a name that is kept with the file."""
MOST_ERRORS: Final = 100
"""So many are told; more tell nobody anything new."""


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line, or with the whole file where `line` is None."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As OpenAI has it."""
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


class BadLine(Exception):
    """A line that cannot be used.

    Attributes:
        code: what is wrong, by a stable name.
        param: the field.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def read_line(raw: bytes) -> dict[str, Any]:
    """The fields of a line, whose form is right: `custom_id`, `method`, `url`, `body`.

    Raises:
        BadLine: it is not.
    """
    try:
        line = from_json(raw.removeprefix(BYTE_ORDER_MARK), allow_inf_nan=False)
    except ValueError:
        raise BadLine("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(line, dict):
        raise BadLine("invalid_json_line", "The line is no JSON object.")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
        message = f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters."
        raise BadLine("missing_required_parameter", message, "custom_id")
    if line.get("method") != "POST":
        raise BadLine("invalid_method", "method must be POST.", "method")
    if not isinstance(line.get("url"), str):
        raise BadLine("invalid_url", "url must be one of the endpoints.", "url")
    if not isinstance(line.get("body"), dict):
        raise BadLine("invalid_request", "body must be an object.", "body")
    return line


@dataclass(slots=True)
class LineCheck:
    """Checks a file that comes in chunks of any size. Holds one line of it, and a digest for each custom_id.

    Args:
        endpoints: what a line may call.
        max_lines: more are an error of the file.

    Attributes:
        lines: how many there are, empty ones left out.
        errors: what is wrong, in the order of the lines.
        first_lines: by endpoint, the number of the first line that calls it.
    """

    endpoints: Collection[str]
    max_lines: int
    lines: int = 0
    errors: list[LineError] = field(default_factory=list)
    first_lines: dict[str, int] = field(default_factory=dict)
    _models: set[str] = field(default_factory=set)
    _number: int = 0
    _rest: bytearray = field(default_factory=bytearray)
    _seen: set[bytes] = field(default_factory=set)
    _is_over: bool = False

    @property
    def model(self) -> str:
        """What all lines name as their model; an empty string where they name several, or none."""
        return next(iter(self._models)) if len(self._models) == 1 else ""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the file."""
        if self._is_over:
            return
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            self._rest += piece
            self._take(bytes(self._rest))
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            self._stop("line_too_long", f"A line has at most {MAX_LINE_BYTES} bytes.", self._number + 1)

    def end(self) -> None:
        """There are no more bytes."""
        self._take(bytes(self._rest))
        self._rest.clear()
        if not self.lines and not self._is_over:
            self.errors.append(LineError("empty_file", "The file has no lines."))

    def _take(self, raw: bytes) -> None:
        self._number += 1
        if self._is_over or not raw.strip():
            return
        self.lines += 1
        if self.lines > self.max_lines:
            self._stop("too_many_lines", f"A file has at most {self.max_lines} lines.", self._number)
            return
        if self.lines == 1 and (hint := _hint(raw)):
            self._stop("invalid_json_line", hint, self._number)
            return
        try:
            self._check(read_line(raw))
        except BadLine as bad:
            self.errors.append(LineError(bad.code, bad.message, self._number, bad.param))
            self._is_over = len(self.errors) >= MOST_ERRORS

    def _check(self, line: dict[str, Any]) -> None:
        if line["url"] not in self.endpoints:
            raise BadLine("invalid_url", f"url must be one of {', '.join(self.endpoints)}.", "url")
        self.first_lines.setdefault(line["url"], self._number)
        digest = blake2b(line["custom_id"].encode(errors="surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            message = f"The custom_id {line['custom_id'][:100]!r} is that of an earlier line."
            raise BadLine("duplicate_custom_id", message, "custom_id")
        self._seen.add(digest)
        if len(self._models) <= 1:
            self._models.add(_model_of(line["body"]))

    def _stop(self, code: str, message: str, line: int) -> None:
        self.errors.append(LineError(code, message, line))
        self._is_over = True
        self._rest.clear()


def _hint(first: bytes) -> str:
    """What is wrong with a whole file, by its first line; empty: nothing that each line would not say itself."""
    if first.startswith(_UTF16_MARKS) or b"\0" in first[:4]:
        return "The file is UTF-16 or UTF-32. Save it as UTF-8."
    if first.removeprefix(BYTE_ORDER_MARK).strip() in (b"{", b"["):
        return "The file is JSON spread over several lines. Each line must be an object of its own (JSON Lines)."
    return ""


def _model_of(body: dict[str, Any]) -> str:
    model = body.get("model")
    return model if isinstance(model, str) and len(model) <= MAX_MODEL_CHARS else ""


def errors_for(endpoint: str, first_lines: dict[str, int], errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What keeps a checked file from being a batch's input: its own errors, and lines that call another endpoint."""
    others = [
        LineError("mismatched_url", f"The batch is for {endpoint}, and this line for {url}.", line, "url").as_dict()
        for url, line in first_lines.items()
        if url != endpoint
    ]
    return sorted([*errors, *others], key=lambda error: error["line"] or 0)


def numbered(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers from 1."""
    return ((number, raw) for number, raw in enumerate(lines, 1) if raw.strip())
