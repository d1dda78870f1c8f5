"""A job as OpenAI's clients read it: whole, or as chunks of a stream. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from api.openai.errors import error_fields, failure, status_of_failure
from api.openai.tool_calls import CallReader, Said
from api.openai.tools import chat_call, finish_reason, turn
from promptq.contract.job import Job, JobError, Result

Kind = Literal["chat", "text"]
ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "text": "cmpl-"}
OBJECT: dict[Kind, str] = {"chat": "chat.completion", "text": "text_completion"}
CHUNK_OBJECT: dict[Kind, str] = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"


def whole(kind: Kind, job: Job, result: Result, calls: CallReader | None = None) -> dict[str, Any]:
    """The answer to a call that waited; `calls` reads those of tools."""
    said = turn(result.text, calls)
    reason = finish_reason(result.finish_reason, calls=bool(said.calls))
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
    if kind == "chat":
        choice["message"] = {"role": "assistant", "content": said.content, "refusal": None}
        if said.calls:
            choice["message"]["tool_calls"] = [chat_call(call, job.id) for call in said.calls]
    else:
        choice["text"] = result.text
    return _head(kind, job.id, job.created_at, job.queue.model) | {
        "object": OBJECT[kind],
        "choices": [choice],
        "usage": usage(result),
    }


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
        calls: reads the calls of tools, where there are any.
    """

    kind: Kind
    job: Job
    includes_usage: bool
    calls: CallReader | None = None
    told: int = 0
    began: bool = False

    def begin(self) -> Iterator[str]:
        """Nothing: the first chunk comes with the text."""
        yield from ()

    def text(self, text: str) -> Iterator[str]:
        """The chunks up to this text, of which some was told before."""
        if self.kind == "chat" and not self.began:
            self.began = True
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if self.calls:
            yield from self._pieces(self.calls, text, is_whole=False)
        elif len(text) > self.told:
            new, self.told = text[self.told :], len(text)
            yield self._chunk({"content": new}) if self.kind == "chat" else self._chunk(new)

    def end(self, job: Job) -> Iterator[str]:
        """The last chunks, after all text; of a job that has none, the error."""
        if error := failure(job):
            yield self.error(error.type, error.message)
        elif result := job.result:
            if self.calls:
                yield from self._pieces(self.calls, result.text, is_whole=True)
            reason = finish_reason(result.finish_reason, calls=bool(self.calls and self.calls.count))
            yield self._chunk({} if self.kind == "chat" else "", reason)
            if self.includes_usage:
                yield self._event({"choices": [], "usage": usage(result)})
            yield DONE

    def _pieces(self, calls: CallReader, text: str, *, is_whole: bool) -> Iterator[str]:
        for piece in calls.read(text, whole=is_whole):
            self.told = piece.end
            if isinstance(piece, Said):
                yield self._chunk({"content": piece.text})
            else:
                yield self._chunk({"tool_calls": [{"index": piece.index} | chat_call(piece, self.job.id)]})

    def error(self, code: str, message: str) -> str:
        """The last event of a stream that cannot go on; the SDK raises it."""
        status = status_of_failure(JobError(code, message))
        return f"data: {to_json({'error': error_fields(status, code, message)}).decode()}\n\n"

    def _chunk(self, piece: Any, finish_reason: str | None = None) -> str:
        name = "delta" if self.kind == "chat" else "text"
        choice = {"index": 0, name: piece, "logprobs": None, "finish_reason": finish_reason}
        return self._event({"choices": [choice]} | ({"usage": None} if self.includes_usage else {}))

    def _event(self, fields: dict[str, Any]) -> str:
        head = _head(self.kind, self.job.id, self.job.created_at, self.job.queue.model)
        return f"data: {to_json(head | {'object': CHUNK_OBJECT[self.kind]} | fields).decode()}\n\n"
