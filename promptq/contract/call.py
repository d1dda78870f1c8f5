"""RQ's `data` field of a job: what is to be generated, and what travels with it that only Python reads. Pure."""

from __future__ import annotations

import pickletools
import zlib
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from promptq.contract.errors import InvalidRequest
from promptq.contract.request import MAX_SEED

FUNCTION: Final = "promptq.generate"
CONTEXT: Final = "promptq"
"""The keyword argument that holds the context."""
MAX_CALL_BYTES = 64 * 2**20


class JobContext(BaseModel):
    """What travels with a job beside the request. The Lua scripts do not know of it: a new field is added here alone.

    Attributes:
        timeout_seconds: the limit of one run, where the job has one of its own.
        traceparent: of the request that made the job (W3C Trace Context).
        request_id: of that request, for the worker's log.
        seed: what decides the draws of a request that names no seed, in every run alike.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeout_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    traceparent: str = ""
    request_id: str = ""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)


NO_CONTEXT: Final = JobContext()


class Call(NamedTuple):
    """What a job calls: the keyword arguments of FUNCTION, and the context that came with them."""

    kwargs: dict[str, Any]
    context: JobContext


def encode_call(kwargs: dict[str, Any], context: JobContext | None = None) -> bytes:
    """The call in JSONSerializer's form; of the context only what differs from its defaults."""
    own = context.model_dump(exclude_defaults=True) if context else {}
    return to_json([FUNCTION, None, [], kwargs | {CONTEXT: own} if own else kwargs])


def decode_call(data: bytes) -> Call:
    """Read a job's call. Imports and runs nothing.

    Raises:
        InvalidRequest: the data is not JSON, or names anything but FUNCTION.
    """
    try:
        function, instance, args, kwargs = from_json(_inflate(data))
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"The job's data is not a JSON call; enqueue with JSONSerializer ({error}).") from None
    if function != FUNCTION:
        raise InvalidRequest(f"This queue runs {FUNCTION!r} only, not {function!r}.", param="function")
    if instance is not None or args or not isinstance(kwargs, dict):
        raise InvalidRequest(f"{FUNCTION!r} takes keyword arguments only.", param="args")
    return Call(kwargs, _context(kwargs.pop(CONTEXT, {})))


def called_function(data: bytes) -> str:
    """The name of the function that a job calls, whichever of RQ's serializers wrote it; "?" where it cannot be told.

    Unpickles nothing: of a pickled call only the first string is read, which is the name.
    """
    try:
        inflated = _inflate(data)
        if inflated.startswith(b"["):
            return str(from_json(inflated)[0])
        return next(str(value) for code, value, _ in pickletools.genops(inflated) if "UNICODE" in code.name)
    except (InvalidRequest, ValueError, LookupError, StopIteration):
        return "?"


def _context(value: Any) -> JobContext:
    try:
        return JobContext.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([CONTEXT, *map(str, first["loc"])])
        raise InvalidRequest(f"{field}: {first['msg']}", param=field) from None


def _inflate(data: bytes) -> bytes:
    """RQ's own enqueue compresses the call; ours does not. A few kilobytes may unpack to gigabytes: not here."""
    if data.startswith(b"["):
        return data
    unpacker = zlib.decompressobj()
    try:
        inflated = unpacker.decompress(data, MAX_CALL_BYTES)
    except zlib.error:
        return data
    if unpacker.unconsumed_tail:
        raise InvalidRequest(f"The job's data unpacks to more than {MAX_CALL_BYTES} bytes.")
    return inflated
