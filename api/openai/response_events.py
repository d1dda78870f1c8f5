"""A response's stream. The numbers of its events follow from the text alone, so any process goes on at any of them.

An event of text has the number of those before all text plus that of the characters up to its end. A call of a function
is told when it is there as a whole. Its events, those that end the message before it, and those that begin the one
behind it have numbers of the call's own characters, of which there are always enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_json

from promptq.contract.job import Job, Result, Status
from promptq.contract.logprobs import TokenLogprob
from promptq.openai.response_items import call_of, logprobs_between, message_id, message_of, part_of
from promptq.openai.responses import last_status, reader_of, resource, status_of
from promptq.openai.tool_calls import Call, Reader, Said, TextReader

CREATED, QUEUED, IN_PROGRESS, _, PART_ADDED = range(5)
MESSAGE_ENDS = 3
"""Events that end a message."""
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}


@dataclass(slots=True)
class _Message:
    """The message that text is added to."""

    id: str
    index: int
    text: str = ""

    @property
    def place(self) -> dict[str, Any]:
        """What all events of its one part have."""
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@dataclass(slots=True)
class ResponseEvents:
    """What one stream has told, and what it tells next.

    Args:
        job: as it was when the stream began.
        shown: what the response shows of its request.
        after: the number of the last event that the client has.
    """

    job: Job
    shown: dict[str, Any]
    after: int = -1
    _reader: Reader = field(init=False)
    _message: _Message | None = None
    _items: int = 0
    _messages: int = 0
    _behind_call: int = 0

    def __post_init__(self) -> None:
        self._reader = reader_of(self.shown)

    @property
    def told(self) -> int:
        """Characters of the text that were told."""
        return max(0, self.after - PART_ADDED)

    def begin(self) -> Iterator[str]:
        """What comes before anything runs."""
        snapshot = self._snapshot("queued")
        yield from self._event(CREATED, "response.created", response=snapshot)
        yield from self._event(QUEUED, "response.queued", response=snapshot)

    def text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[str]:
        """The events up to this text, of which some was told before. What is told of its tokens comes with the end."""
        yield from self._event(IN_PROGRESS, "response.in_progress", response=self._snapshot("in_progress"))
        if isinstance(self._reader, TextReader):
            yield from self._begin_message()
        yield from self._pieces(text, logprobs, is_whole=False)

    def end(self, job: Job) -> Iterator[str]:
        """The last events. A job that was cancelled ends its stream as an incomplete response."""
        # Without a result there may have been text all the same.
        number = PART_ADDED + self.told
        if job.result:
            number = PART_ADDED + len(job.result.text)
            if job.status is not Status.FAILED:
                yield from self._last_items(job, job.result)
        name = _ENDS.get(status_of(job), "response.incomplete")
        yield from self._event(number + 4, name, response=resource(job, self.shown))

    def _last_items(self, job: Job, result: Result) -> Iterator[str]:
        yield from self._pieces(result.text, result.logprobs, is_whole=True)
        if not self._items:
            yield from self._begin_message()
        if self._message:
            told = logprobs_between(result.logprobs, result.text, self._behind_call, None)
            yield from self._end_message(PART_ADDED + len(result.text), last_status(job), told)

    def _pieces(self, text: str, logprobs: Sequence[TokenLogprob], *, is_whole: bool) -> Iterator[str]:
        for piece in self._reader.read(text, whole=is_whole):
            if isinstance(piece, Said):
                yield from self._said(piece)
                continue
            before = PART_ADDED + piece.start
            if self._message:
                told = logprobs_between(logprobs, text, self._behind_call, piece.start)
                yield from self._end_message(before, "completed", told)
            yield from self._call(before + MESSAGE_ENDS, piece)

    def _said(self, said: Said) -> Iterator[str]:
        yield from self._begin_message()
        assert self._message
        self._message.text += said.text
        if new := said.text[max(0, self.told - said.start) :]:
            place = self._message.place
            yield from self._event(PART_ADDED + said.end, "response.output_text.delta", **place, delta=new, logprobs=[])

    def _begin_message(self) -> Iterator[str]:
        """Begin one, unless one goes on. Behind a call, its two events have the numbers of the call's end."""
        if self._message:
            return
        self._message = message = _Message(message_id(self.job.id, self._messages), self._items)
        self._items, self._messages = self._items + 1, self._messages + 1
        number, item = PART_ADDED + self._behind_call, message_of(message.id, "in_progress", [])
        yield from self._event(number - 1, "response.output_item.added", output_index=message.index, item=item)
        yield from self._event(number, "response.content_part.added", **message.place, part=part_of(""))

    def _end_message(self, number: int, status: str, logprobs: Sequence[TokenLogprob]) -> Iterator[str]:
        """End the one that goes on, with three events behind this number."""
        assert self._message
        message, self._message = self._message, None
        part = part_of(message.text, logprobs)
        done = {**message.place, "text": message.text, "logprobs": part["logprobs"]}
        item = message_of(message.id, status, [part])
        yield from self._event(number + 1, "response.output_text.done", **done)
        yield from self._event(number + 2, "response.content_part.done", **message.place, part=part)
        yield from self._event(number + 3, "response.output_item.done", output_index=message.index, item=item)

    def _call(self, number: int, call: Call) -> Iterator[str]:
        """A whole call, in four events behind this number. A call has more characters than they need."""
        self._behind_call, index = call.end, self._items
        self._items += 1
        begun, item = call_of(call, self.job.id, is_begun=True), call_of(call, self.job.id)
        place = {"item_id": item["id"], "output_index": index}
        arguments = "response.function_call_arguments"
        yield from self._event(number + 1, "response.output_item.added", output_index=index, item=begun)
        yield from self._event(number + 2, f"{arguments}.delta", **place, delta=call.arguments)
        yield from self._event(number + 3, f"{arguments}.done", **place, arguments=call.arguments)
        yield from self._event(number + 4, "response.output_item.done", output_index=index, item=item)

    def error(self, code: str, text: str) -> str:
        """The last event of a stream that cannot go on.

        No text belongs to it, so it has the number of the one before it: who goes on behind it misses nothing.
        """
        return _event("error", max(0, self.after), {"code": code, "message": text, "param": None})

    def _snapshot(self, status: str) -> dict[str, Any]:
        """The response before it had anything, which is the same for those who come after its end."""
        return resource(replace(self.job, status=Status.QUEUED, result=None, error=None), self.shown) | {
            "status": status
        }

    def _event(self, number: int, name: str, **fields: Any) -> Iterator[str]:
        if number > self.after:
            self.after = number
            yield _event(name, number, fields)


def _event(name: str, number: int, fields: dict[str, Any]) -> str:
    data = {"type": name, "sequence_number": number, **fields}
    return f"event: {name}\ndata: {to_json(data).decode()}\n\n"
