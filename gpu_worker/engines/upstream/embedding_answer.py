"""What the whole answer to a request for an embedding says. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from gpu_worker.engines.base import FinishReason
from gpu_worker.engines.upstream.chunks import Finish, read_usage
from gpu_worker.engines.upstream.failures import Failure, Kind, StreamFault, of_stream_error
from promptq.contract import embeddings


def read(body: bytes) -> Finish:
    """The one embedding of an answer, in either of OpenAI's forms: base64, or a list of numbers.

    Raises:
        StreamFault: the answer is an error, has no end, or is no answer with one embedding. One whose numbers are not
            finite is the request's fault.
    """
    answer = _json(body)
    if isinstance(answer, dict) and (error := answer.get("error")):
        raise StreamFault(of_stream_error(error))
    try:
        (one,) = answer["data"]
        # Nothing is completed here, whatever a server that counts it otherwise says.
        usage = replace(read_usage(answer.get("usage") or {}), completion_tokens=None)
        return Finish(FinishReason.STOP, usage, embedding=_embedding(one["embedding"]))
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
        failure = Failure(Kind.FAILED, f"what came is no answer with one embedding: {body[:80]!r}")
        raise StreamFault(failure) from None


def _json(body: bytes) -> Any:
    """An answer without a length may break off in silence: then what came is no JSON."""
    try:
        return from_json(body)
    except ValueError:
        kind = Kind.LOST if body else Kind.FAILED
        raise StreamFault(Failure(kind, f"what came is no whole answer: {body[-80:]!r}")) from None


def _embedding(given: Any) -> list[float]:
    numbers = embeddings.unpacked(given) if isinstance(given, str) else [float(number) for number in given]
    if not numbers:
        raise ValueError("no numbers")
    try:
        embeddings.packed(numbers)
    except ValueError:
        message = "the server's embedding has a number that is no finite float32"
        raise StreamFault(Failure(Kind.REQUEST, message, "upstream_error")) from None
    return numbers
