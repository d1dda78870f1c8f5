"""A job as OpenAI's clients read it: whole, or as chunks of a stream. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import to_json

from promptq.contract.job import Job, JobError, Result
from promptq.contract.logprobs import TokenLogprob, legacy, with_bytes
from promptq.openai.errors import error_fields, failure, status_of_failure
from promptq.openai.tool_calls import CallReader, Said
from promptq.openai.tools import chat_call, finish_reason, turn

Kind = Literal["chat", "text"]
ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "text": "cmpl-"}
OBJECT: dict[Kind, str] = {"chat": "chat.completion", "text": "text_completion"}
CHUNK_OBJECT: dict[Kind, str] = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"
Readers = Callable[[], CallReader | None]
"""Gives a new reader for each text, or None where no tools are offered."""


def no_reader() -> None:
    """For texts without calls."""


def whole(
    kind: Kind, jobs: Sequence[Job], results: Sequence[Result], prompts: int = 1, calls: Readers = no_reader
) -> dict[str, Any]:
    """The answer to a call that waited.

    Args:
        jobs: one for each choice, those of one prompt after those of another.
        prompts: how many prompts there were.
        calls: gives what reads the calls of tools out of a text, where there are any.
    """
    first, texts = jobs[0], zip(jobs, results, strict=True)
    return _head(kind, first) | {
        "object": OBJECT[kind],
        "choices": [_choice(kind, index, *text, calls()) for index, text in enumerate(texts)],
        "usage": usage(results, prompts),
    }


def _choice(kind: Kind, index: int, job: Job, result: Result, calls: CallReader | None) -> dict[str, Any]:
    said, logprobs = turn(result.text, calls), logprobs_of(kind, result.logprobs)
    reason = finish_reason(result.finish_reason, calls=bool(said.calls))
    choice: dict[str, Any] = {"index": index, "logprobs": logprobs, "finish_reason": reason}
    if kind == "text":
        return choice | {"text": result.text}
    called = {"tool_calls": [chat_call(call, job.id) for call in said.calls]} if said.calls else {}
    return choice | {"message": {"role": "assistant", "content": said.content, "refusal": None} | called}


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


def usage(results: Sequence[Result], prompts: int = 1) -> dict[str, Any]:
    """What was counted: each prompt once, however many texts it has."""
    each = len(results) // prompts
    prompt_tokens = sum(result.prompt_tokens for result in results[::each])
    completion_tokens = sum(result.completion_tokens for result in results)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(result.cached_tokens for result in results[::each])},
    }


def _head(kind: Kind, job: Job) -> dict[str, Any]:
    return {"id": ID_PREFIX[kind] + job.id, "created": int(job.created_at), "model": job.queue.model}


@dataclass(slots=True)
class Completions:
    """One stream: what its choices have in common.

    Args:
        jobs: one for each choice, those of one prompt after those of another.
        prompts: how many prompts there were.
        includes_usage: whether the last chunk counts the tokens.
        calls: gives what reads the calls of tools, where there are any.
    """

    kind: Kind
    jobs: Sequence[Job]
    includes_usage: bool
    prompts: int = 1
    calls: Readers = no_reader
    results: dict[int, Result] = field(default_factory=dict)

    def forms(self) -> dict[str, Chunks]:
        """By job, what tells its choice."""
        return {job.id: Chunks(self, index, self.calls()) for index, job in enumerate(self.jobs)}

    def end(self, index: int, result: Result) -> Iterator[str]:
        """What comes after this choice: nothing but for the last one."""
        self.results[index] = result
        if len(self.results) < len(self.jobs):
            return
        if self.includes_usage:
            results = [self.results[at] for at in range(len(self.jobs))]
            yield self.event({"choices": [], "usage": usage(results, self.prompts)})
        yield DONE

    def event(self, fields: dict[str, Any]) -> str:
        """One event, with what all have."""
        head = _head(self.kind, self.jobs[0])
        return f"data: {to_json(head | {'object': CHUNK_OBJECT[self.kind]} | fields).decode()}\n\n"


@dataclass(slots=True)
class Chunks:
    """What was told of one choice, and what is told next."""

    stream: Completions
    index: int = 0
    calls: CallReader | None = None
    told: int = 0
    told_tokens: int = 0
    began: bool = False

    @property
    def kind(self) -> Kind:
        """Of the stream."""
        return self.stream.kind

    def begin(self) -> Iterator[str]:
        """Nothing: the first chunk comes with the text."""
        yield from ()

    def text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[str]:
        """The chunks up to this text, of which some was told before; `logprobs` of all its tokens."""
        if self.kind == "chat" and not self.began:
            self.began = True
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if self.calls:
            yield from self._pieces(self.calls, text, is_whole=False)
        elif len(text) > self.told or len(logprobs) > self.told_tokens:
            scores = self._scores(logprobs)
            new, self.told = text[self.told :], len(text)
            yield self._chunk({"content": new} if self.kind == "chat" else new, logprobs=scores)

    def end(self, job: Job) -> Iterator[str]:
        """The last chunks, after all text; of a job that has none, the error."""
        if error := failure(job):
            yield self.error(error.type, error.message)
        elif result := job.result:
            if self.calls:
                yield from self._pieces(self.calls, result.text, is_whole=True)
            reason = finish_reason(result.finish_reason, calls=bool(self.calls and self.calls.count))
            yield self._chunk({} if self.kind == "chat" else "", reason, self._scores(result.logprobs))
            yield from self.stream.end(self.index, result)

    def _pieces(self, calls: CallReader, text: str, *, is_whole: bool) -> Iterator[str]:
        for piece in calls.read(text, whole=is_whole):
            self.told = piece.end
            if isinstance(piece, Said):
                yield self._chunk({"content": piece.text})
            else:
                job_id = self.stream.jobs[self.index].id
                yield self._chunk({"tool_calls": [{"index": piece.index} | chat_call(piece, job_id)]})

    def _scores(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        """Of the tokens that nothing was told of yet."""
        new, self.told_tokens = logprobs[self.told_tokens :], len(logprobs)
        return logprobs_of(self.kind, new, self.told)

    def error(self, code: str, message: str) -> str:
        """The last event of a stream that cannot go on; the SDK raises it."""
        status = status_of_failure(JobError(code, message))
        return f"data: {to_json({'error': error_fields(status, code, message)}).decode()}\n\n"

    def _chunk(self, piece: Any, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None) -> str:
        name = "delta" if self.kind == "chat" else "text"
        choice = {"index": self.index, name: piece, "logprobs": logprobs, "finish_reason": finish_reason}
        return self.stream.event({"choices": [choice]} | ({"usage": None} if self.stream.includes_usage else {}))
