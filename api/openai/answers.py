"""A job as OpenAI's clients read it: whole, or as chunks of a stream. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from api.openai.errors import error_fields, failure, status_of_failure
from promptq.contract.job import Job, JobError, Result
from promptq.contract.logprobs import TokenLogprob, legacy, with_bytes

Kind = Literal["chat", "text"]
ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "text": "cmpl-"}
OBJECT: dict[Kind, str] = {"chat": "chat.completion", "text": "text_completion"}
CHUNK_OBJECT: dict[Kind, str] = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"


def whole(kind: Kind, job: Job, result: Result) -> dict[str, Any]:
    """The answer to a call that waited."""
    logprobs = logprobs_of(kind, result.logprobs)
    choice: dict[str, Any] = {"index": 0, "logprobs": logprobs, "finish_reason": result.finish_reason}
    if kind == "chat":
        choice["message"] = {"role": "assistant", "content": result.text, "refusal": None}
    else:
        choice["text"] = result.text
    return _head(kind, job.id, job.created_at, job.queue.model) | {
        "object": OBJECT[kind],
        "choices": [choice],
        "usage": usage(result),
    }


def logprobs_of(kind: Kind, entries: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any] | None:
    """The log probabilities of a text's tokens; None where they were not asked for.

    Args:
        offset: characters of the text before these tokens.
    """
    if not entries:
        return None
    if kind == "text":
        return legacy(entries, offset)
    return {"content": [with_bytes(entry) for entry in entries], "refusal": None}


def usage(result: Result) -> dict[str, Any]:
    """What was counted."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": result.cached_tokens},
    }


def _head(kind: Kind, job_id: str, created_at: float, model: str) -> dict[str, Any]:
    return {"id": ID_PREFIX[kind] + job_id, "created": int(created_at), "model": model}


@dataclass(slots=True)
class Chunks:
    """What one stream has told, and what it tells next.

    Args:
        includes_usage: whether the last chunk counts the tokens.
    """

    kind: Kind
    job: Job
    includes_usage: bool
    told: int = 0
    told_tokens: int = 0
    began: bool = False

    def begin(self) -> Iterator[str]:
        """Nothing: the first chunk comes with the text."""
        yield from ()

    def text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[str]:
        """The chunks up to this text, of which some was told before; `logprobs` of all its tokens."""
        if self.kind == "chat" and not self.began:
            self.began = True
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if len(text) > self.told or len(logprobs) > self.told_tokens:
            entries, self.told_tokens = logprobs[self.told_tokens :], len(logprobs)
            scores = logprobs_of(self.kind, entries, self.told)
            new, self.told = text[self.told :], len(text)
            yield self._chunk({"content": new} if self.kind == "chat" else new, logprobs=scores)

    def end(self, job: Job) -> Iterator[str]:
        """The last chunks, after all text; of a job that has none, the error."""
        if error := failure(job):
            yield self.error(error.type, error.message)
        elif result := job.result:
            yield self._chunk({} if self.kind == "chat" else "", result.finish_reason)
            if self.includes_usage:
                yield self._event({"choices": [], "usage": usage(result)})
            yield DONE

    def error(self, code: str, message: str) -> str:
        """The last event of a stream that cannot go on; the SDK raises it."""
        status = status_of_failure(JobError(code, message))
        return f"data: {to_json({'error': error_fields(status, code, message)}).decode()}\n\n"

    def _chunk(self, piece: Any, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None) -> str:
        name = "delta" if self.kind == "chat" else "text"
        choice = {"index": 0, name: piece, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._event({"choices": [choice]} | ({"usage": None} if self.includes_usage else {}))

    def _event(self, fields: dict[str, Any]) -> str:
        head = _head(self.kind, self.job.id, self.job.created_at, self.job.queue.model)
        return f"data: {to_json(head | {'object': CHUNK_OBJECT[self.kind]} | fields).decode()}\n\n"
