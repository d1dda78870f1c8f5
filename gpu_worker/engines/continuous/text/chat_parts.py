"""What a chat template is given: turns and tools, and all texts in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json

from promptq.contract.request import GenerateRequest, Message


def chat_parts(request: GenerateRequest) -> dict[str, Any]:
    """The turns and, where there are any, the tools, as templates expect them."""
    tools = [tool.model_dump(exclude_none=True) for tool in request.offered_tools]
    return {"turns": [_turn(message) for message in request.messages or ()], "tools": tools or None}


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_calls:
        turn["tool_calls"] = [call.model_dump() for call in message.tool_calls]
        for call in turn["tool_calls"]:
            # Templates write arguments as JSON themselves; a text would be quoted once more.
            call["function"]["arguments"] = from_json(call["function"]["arguments"])
    return turn | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})


def texts(value: Any) -> Iterator[str]:
    """All strings in a value, the names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with all its strings changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): mapped(part, change) for name, part in value.items()}
    return [mapped(part, change) for part in value] if isinstance(value, list) else value
