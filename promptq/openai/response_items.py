"""What a response says: its text, read into messages and calls of functions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from promptq.contract.logprobs import TokenLogprob, with_bytes
from promptq.openai.tool_calls import Call, Reader, Said


def message_id(job_id: str, nth: int) -> str:
    """Of a response's first message, or of a later one, which stands behind a call.

    Args:
        nth: messages before it.
    """
    return f"msg_{job_id}_{nth}" if nth else f"msg_{job_id}"


def message_of(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """A turn in whatever state."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def part_of(text: str, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
    """The one part of a turn."""
    told = [with_bytes(entry) for entry in logprobs]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}


def call_of(call: Call, job_id: str, *, is_begun: bool = False) -> dict[str, Any]:
    """A call of a function; one that has only begun has no arguments yet."""
    return {
        "id": f"fc_{job_id}_{call.index}",
        "type": "function_call",
        "call_id": call.id(job_id),
        "name": call.name,
        "arguments": "" if is_begun else call.arguments,
        "status": "in_progress" if is_begun else "completed",
    }


def items_of(
    job_id: str, text: str, reader: Reader, last_status: str, logprobs: Sequence[TokenLogprob] = ()
) -> Iterator[dict[str, Any]]:
    """The items of a whole text. Without any text there is one message, which is empty.

    Args:
        last_status: of a message at the end; what stands before another item is completed.
        logprobs: of all tokens of the text.
    """
    pieces = _joined(reader.read(text, whole=True)) or [Said("", 0, 0)]
    messages = 0
    for place, piece in enumerate(pieces):
        if isinstance(piece, Call):
            yield call_of(piece, job_id)
            continue
        begin = pieces[place - 1].end if place else 0
        is_last = place == len(pieces) - 1
        told = logprobs_between(logprobs, text, begin, None if is_last else pieces[place + 1].start)
        status = last_status if is_last else "completed"
        yield message_of(message_id(job_id, messages), status, [part_of(piece.text, told)])
        messages += 1


def _joined(pieces: Iterator[Said | Call]) -> list[Said | Call]:
    """With what is said in one go as one piece."""
    joined: list[Said | Call] = []
    for piece in pieces:
        if joined and isinstance(piece, Said) and isinstance(before := joined[-1], Said):
            joined[-1] = Said(before.text + piece.text, before.start, piece.end)
        else:
            joined.append(piece)
    return joined


def logprobs_between(
    logprobs: Sequence[TokenLogprob], text: str, begin: int, end: int | None
) -> Sequence[TokenLogprob]:
    """Those of the tokens that begin between two places of a text.

    Args:
        begin: in characters, as `end`.
        end: None: all that follow, those of a stop string too, which is not in the text.
    """
    if end is None and not begin:
        return logprobs
    # Counted in bytes, because a token may be a part of a character.
    first, behind = len(text[:begin].encode()), len(text[:end].encode())
    found, place = [], 0
    for entry in logprobs:
        if place >= first and (end is None or place < behind):
            found.append(entry)
        place += len(entry.get("bytes") or entry["token"].encode())
    return found
