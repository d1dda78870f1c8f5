"""What the chunks of one stream say: text, tokens, calls of tools, and the end. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from gpu_worker.engines.base import FinishReason
from gpu_worker.engines.upstream.failures import Failure, Kind, StreamFault, of_stream_error
from promptq.contract.logprobs import TokenLogprob, token_logprob
from promptq.contract.tools import CALL_CLOSE, CALL_OPEN

_REASONS: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.STOP,
    "function_call": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk added.

    Attributes:
        tokens: as many as have log probabilities, else one: a chunk does not say.
    """

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server counted; 0 where it did not say.

    Attributes:
        completion_tokens: None: it did not say.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How a text ended, or that the embedding has come.

    Attributes:
        text: what follows behind all pieces: the calls of tools.
        refused: why the server keeps the text back, where it does.
        embedding: what came in place of a text, where one was asked for.
    """

    reason: FinishReason
    usage: Usage
    text: str = ""
    refused: str = ""
    embedding: Sequence[float] = ()


@dataclass(slots=True)
class _Call:
    name: str = ""
    arguments: str = ""

    def text(self) -> str:
        """In the Hermes form; arguments that are no JSON, because they were cut off, make a call that has no end."""
        head = f'{CALL_OPEN}\n{{"name": {to_json(self.name).decode()}, "arguments": {self.arguments or "{}"}'
        try:
            from_json(self.arguments or "{}")
        except ValueError:
            return head
        return f"{head}}}\n{CALL_CLOSE}"


@dataclass(slots=True)
class ChunkReader:
    """Reads the chunks of one stream, in their order.

    Args:
        top: how many of the likeliest tokens were asked for.

    Attributes:
        usage: as the last chunk that had one said.
    """

    top: int = 0
    usage: Usage = field(default_factory=Usage)
    _finish_reason: str = ""
    _calls: dict[int, _Call] = field(default_factory=dict)
    _has_text: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the server has said why the text ends."""
        return bool(self._finish_reason)

    def read(self, data: str) -> Piece | None:
        """What a chunk adds; None: nothing.

        Raises:
            StreamFault: it is an error, or no chunk.
        """
        try:
            chunk = from_json(data)
            if isinstance(chunk, dict) and (error := chunk.get("error")):
                raise StreamFault(of_stream_error(error))
            return self._read(chunk)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError):
            failure = Failure(Kind.FAILED, f"what came is no chunk of a stream: {data[:80]!r}")
            raise StreamFault(failure) from None

    def finish(self) -> Finish:
        """How the text ended, once it has."""
        calls = "\n".join(call.text() for _, call in sorted(self._calls.items()))
        text = f"\n{calls}" if calls and self._has_text else calls
        reason = _REASONS.get(self._finish_reason)
        refused = "" if reason else f"the server ended the text with the reason {self._finish_reason!r}"
        return Finish(reason or FinishReason.ERROR, self.usage, text, refused)

    def _read(self, chunk: Any) -> Piece | None:
        if usage := chunk.get("usage"):
            self.usage = read_usage(usage)
        choices = chunk["choices"]
        if not choices:
            return None
        choice = choices[0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta") or {}
        self._take_calls(delta)
        text = choice["text"] if "text" in choice else delta.get("content") or ""
        logprobs = tuple(_logprobs(choice.get("logprobs"), self.top))
        self._has_text = self._has_text or bool(text)
        if not (text or logprobs or delta.get("tool_calls")):
            return None
        return Piece(_text(text), len(logprobs) or 1, logprobs)

    def _take_calls(self, delta: Mapping[str, Any]) -> None:
        for part in delta.get("tool_calls") or ():
            call = self._calls.setdefault(int(part.get("index") or 0), _Call())
            function = part.get("function") or {}
            call.name += _text(function.get("name") or "")
            call.arguments += _text(function.get("arguments") or "")


def _text(value: Any) -> str:
    """A text that can be stored: JSON may have half a character."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode(errors="replace").decode()


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """What a server says that it counted."""
    details = usage.get("prompt_tokens_details") or {}
    cached = int(details.get("cached_tokens") or 0)
    completion = usage.get("completion_tokens")
    return Usage(int(usage.get("prompt_tokens") or 0), cached, None if completion is None else int(completion))


def _logprobs(given: Any, top: int) -> Iterator[TokenLogprob]:
    """Of a chat's chunk, or of a completion's, in our form."""
    if not given:
        return
    if "tokens" not in given:
        for entry in given.get("content") or ():
            likeliest = [_entry(each) for each in entry.get("top_logprobs") or ()]
            yield _entry(entry) | {"top_logprobs": likeliest[:top]}
        return
    alternatives = given.get("top_logprobs") or [{}] * len(given["tokens"])
    for token, logprob, others in zip(given["tokens"], given["token_logprobs"], alternatives, strict=True):
        ordered = sorted((others or {}).items(), key=lambda item: -_number(item[1]))
        likeliest = [token_logprob(_text(text).encode(), _number(value)) for text, value in ordered]
        yield token_logprob(_text(token).encode(), _number(logprob), likeliest[:top])


def _entry(entry: Mapping[str, Any]) -> TokenLogprob:
    data = bytes(entry["bytes"]) if entry.get("bytes") else _text(entry["token"]).encode()
    return token_logprob(data, _number(entry["logprob"]))


def _number(value: Any) -> float:
    """A log probability. Of a first token some servers give none; JSON has no infinity, for us too."""
    number = float(value) if value is not None else 0.0
    return number if math.isfinite(number) else -9999.0
