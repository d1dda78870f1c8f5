"""A response's stream. The numbers of its events follow from the text alone, so any process goes on at any of them.

An event of text has the number of those before all text plus that of the characters up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from api.openai.responses import message_of, part_of, resource, status_of
from promptq.contract.job import Job, Status
from promptq.contract.logprobs import TokenLogprob

CREATED, QUEUED, IN_PROGRESS, ITEM_ADDED, PART_ADDED = range(5)
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}


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
    told: int = field(init=False)

    def __post_init__(self) -> None:
        self.told = max(0, self.after - PART_ADDED)

    def begin(self) -> Iterator[str]:
        """What comes before anything runs."""
        snapshot = self._snapshot("queued")
        yield from self._event(CREATED, "response.created", response=snapshot)
        yield from self._event(QUEUED, "response.queued", response=snapshot)

    def text(self, text: str, _logprobs: Sequence[TokenLogprob] = ()) -> Iterator[str]:
        """The events up to this text, of which some was told before. What is told of its tokens comes with the end."""
        item = message_of(self.job.id, "in_progress", [])
        yield from self._event(IN_PROGRESS, "response.in_progress", response=self._snapshot("in_progress"))
        yield from self._event(ITEM_ADDED, "response.output_item.added", output_index=0, item=item)
        yield from self._event(PART_ADDED, "response.content_part.added", **self._place(), part=part_of(""))
        if len(text) > self.told:
            new, self.told = text[self.told :], len(text)
            number = PART_ADDED + self.told
            yield from self._event(number, "response.output_text.delta", **self._place(), delta=new, logprobs=[])

    def end(self, job: Job) -> Iterator[str]:
        """The last events. A job that was cancelled ends its stream as an incomplete response."""
        text = job.result.text if job.result else ""
        # Without a result there may have been text all the same.
        number, status = PART_ADDED + (len(text) if job.result else self.told), status_of(job)
        part = part_of(text, job.result.logprobs if job.result else ())
        item = message_of(job.id, "completed" if status == "completed" else "incomplete", [part])
        if job.result and job.status is not Status.FAILED:
            done = {**self._place(), "text": text, "logprobs": part["logprobs"]}
            yield from self._event(number + 1, "response.output_text.done", **done)
            yield from self._event(number + 2, "response.content_part.done", **self._place(), part=part)
            yield from self._event(number + 3, "response.output_item.done", output_index=0, item=item)
        name = _ENDS.get(status, "response.incomplete")
        yield from self._event(number + 4, name, response=resource(job, self.shown))

    def error(self, code: str, text: str) -> str:
        """The last event of a stream that cannot go on."""
        return _event("error", PART_ADDED + self.told + 1, {"code": code, "message": text, "param": None})

    def _snapshot(self, status: str) -> dict[str, Any]:
        return resource(self.job, self.shown) | {"status": status, "output": [], "usage": None, "error": None}

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self.job.id}", "output_index": 0, "content_index": 0}

    def _event(self, number: int, name: str, **fields: Any) -> Iterator[str]:
        if number > self.after:
            self.after = number
            yield _event(name, number, fields)


def _event(name: str, number: int, fields: dict[str, Any]) -> str:
    data = {"type": name, "sequence_number": number, **fields}
    return f"event: {name}\ndata: {to_json(data).decode()}\n\n"
