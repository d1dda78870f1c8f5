"""Calls of tools out of a text in the Hermes form, at once or as the text comes. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from promptq.contract.tools import CALL_CLOSE, CALL_OPEN, CalledFunction

_ARGUMENTS = re.compile(r'\s*\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"arguments"\s*:\s*')


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text that is no call: all characters of the whole text from `start` to `end`."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call; its arguments are JSON as the model wrote it. `start` and `end` as in `Said`."""

    index: int
    name: str
    arguments: str
    start: int
    end: int

    def id(self, job_id: str) -> str:
        """The same whenever the same job is shown."""
        return f"call_{job_id}_{self.index}"


@dataclass(slots=True)
class TextReader:
    """Reads a text that grows and has no calls.

    Attributes:
        at: characters that were read.
    """

    at: int = 0

    def read(self, text: str, *, whole: bool) -> Iterator[Said | Call]:  # noqa: ARG002  # as a `CallReader` does
        """What is new in this text, which is given from its beginning."""
        if len(text) > self.at:
            start, self.at = self.at, len(text)
            yield Said(text[start:], start, len(text))


@dataclass(slots=True)
class CallReader:
    """Reads a text that grows. What may become a call is held back; what cannot be read as one stays text.

    Args:
        most: calls after so many are left out, and the text behind them.

    Attributes:
        at: characters that were read.
        count: calls that were found.
    """

    most: int | None = None
    at: int = 0
    count: int = 0
    _tried: int = field(default=0)
    _is_behind_call: bool = field(default=False)

    def read(self, text: str, *, whole: bool) -> Iterator[Said | Call]:
        """What is new in this text.

        Args:
            text: from its beginning.
            whole: nothing will follow.
        """
        while self.most is None or self.count < self.most:
            self._skip_gap(text)
            begin = text.find(CALL_OPEN, self.at)
            if begin < 0:
                yield from self._said(text, len(text) if whole else _certain(text, self.at))
                return
            yield from self._said(text, self.at + len(text[self.at : begin].rstrip()))
            if call := self._call(text, begin):
                yield call
            elif not whole:
                return
            else:
                self._tried = 0
                yield from self._said(text, begin + len(CALL_OPEN))
        self.at = len(text)

    def _skip_gap(self, text: str) -> None:
        """White space behind a call belongs to its form."""
        if self._is_behind_call:
            rest = text[self.at :].lstrip()
            self.at, self._is_behind_call = len(text) - len(rest), not rest

    def _said(self, text: str, end: int) -> Iterator[Said]:
        if end > self.at:
            start, self.at = self.at, end
            yield Said(text[start:end], start, end)

    def _call(self, text: str, begin: int) -> Call | None:
        """The call that begins here: up to the first end behind which it can be read, for a string may have one too."""
        end = text.find(CALL_CLOSE, max(begin, self._tried))
        while end >= 0:
            self._tried = end + 1
            if read := _parsed(text[begin + len(CALL_OPEN) : end]):
                call = Call(self.count, *read, begin, end + len(CALL_CLOSE))
                self.at, self.count, self._is_behind_call = call.end, self.count + 1, True
                return call
            end = text.find(CALL_CLOSE, end + 1)
        return None


Reader = CallReader | TextReader


def _certain(text: str, at: int) -> int:
    """Up to where the text cannot be the beginning of a call, nor the white space before one."""
    held = next((size for size in range(len(CALL_OPEN) - 1, 0, -1) if text.endswith(CALL_OPEN[:size], at)), 0)
    return at + len(text[at : len(text) - held].rstrip())


def _parsed(text: str) -> tuple[str, str] | None:
    """A call's name and arguments, where they are such that the call can be sent back as part of a chat."""
    try:
        call = json.loads(text)
        if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict):
            return None
        fields = {"name": call.get("name"), "arguments": _written(text, call["arguments"])}
        called = CalledFunction.model_validate(fields)
    except (ValueError, RecursionError):
        return None
    return called.name, called.arguments


def _written(text: str, arguments: dict[str, Any]) -> str:
    """The arguments as the model wrote them, where they stand behind the name, as they do in the Hermes form."""
    if not (before := _ARGUMENTS.match(text)):
        return json.dumps(arguments, ensure_ascii=False)
    _, end = json.JSONDecoder().raw_decode(text, before.end())
    return text[before.end() : end]
