"""One call of an endpoint as it stands in a batch: the jobs that it asks for, and its answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from promptq.contract.admission import invalid_request
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Job, Result
from promptq.openai import embeddings
from promptq.openai.answers import Kind, whole
from promptq.openai.fields import ChatCompletion, Completion, Sampling
from promptq.openai.responses import CreateResponse, resource
from promptq.openai.tools import reader


@dataclass(frozen=True, slots=True)
class Call:
    """What a body asks for.

    Attributes:
        requests: the fields of each of its jobs.
        answer: makes the answer of the jobs, all of which have succeeded, and their results.
        max_tokens_param: what the body calls `max_tokens`.
        params: what the body calls a job's other fields, where it has another name for one.
    """

    requests: Sequence[dict[str, Any]]
    answer: Callable[[Sequence[Job], Sequence[Result]], dict[str, Any]]
    max_tokens_param: str = "max_tokens"
    params: Mapping[str, str] = field(default_factory=dict)


def read_call(endpoint: str, body: bytes, default_tokens: int) -> Call:
    """What a body asks of an endpoint of ENDPOINTS.

    Args:
        body: JSON.
        default_tokens: the most tokens of a text where the body says nothing.

    Raises:
        InvalidRequest: a field is wrong, or is not for batches.
        InvalidJson: it is not JSON.
    """
    try:
        return _READERS[endpoint](body, default_tokens)
    except ValidationError as error:
        raise invalid_request(error) from None


def _chat(body: bytes, default_tokens: int) -> Call:
    return _completion("chat", ChatCompletion.model_validate_json(body), default_tokens)


def _text(body: bytes, default_tokens: int) -> Call:
    return _completion("text", Completion.model_validate_json(body), default_tokens)


def _completion(kind: Kind, read: ChatCompletion | Completion, default_tokens: int) -> Call:
    _refuse_streams(read)
    read.check()
    requests, prompts = read.jobs(default_tokens), len(read.prompts)
    calls = partial(reader, requests[0])
    return Call(requests, lambda jobs, results: whole(kind, jobs, results, prompts, calls), read.tokens_param)


def _embeddings(body: bytes, _default_tokens: int) -> Call:
    read = embeddings.EmbeddingsRequest.model_validate_json(body)

    def answer(jobs: Sequence[Job], results: Sequence[Result]) -> dict[str, Any]:
        return embeddings.answer(jobs[0].queue.model, results, read.encoding_format)

    return Call(read.jobs(), answer, params=embeddings.PARAMS)


def _response(body: bytes, default_tokens: int) -> Call:
    read = CreateResponse.model_validate_json(body)
    _refuse_streams(read)
    for name in ("background", "previous_response_id", "webhook"):
        if getattr(read, name):
            raise InvalidRequest("Not in a batch.", param=name)
    read.check()
    shown = read.shown()
    # Which of the chat's messages is wrong says nothing to who sent items and instructions.
    return Call(
        [read.job_behind([], default_tokens)], lambda jobs, _results: resource(jobs[0], shown), "max_output_tokens",
        {"messages": "input"},
    )  # fmt: skip


def _refuse_streams(read: Sampling | CreateResponse) -> None:
    if read.stream:
        raise InvalidRequest("Not in a batch.", param="stream")


_READERS: Final[Mapping[str, Callable[[bytes, int], Call]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _text,
    "/v1/responses": _response,
    "/v1/embeddings": _embeddings,
}
ENDPOINTS: Final = tuple(_READERS)
"""What a batch may call."""
