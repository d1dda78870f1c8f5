"""The items that a response is to answer, as turns of a chat. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from promptq.contract.request import MaybeText, Text
from promptq.contract.tools import CalledFunction
from promptq.openai.body import Body, WithoutEffect
from promptq.openai.turns import Turn, joining

MESSAGE, CALL, OUTPUT = "(message)", "(call)", "(output)"


class InputPart(Body):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: WithoutEffect = None
    logprobs: WithoutEffect = None


_PARTS = ("input_text", "output_text", "text")
_Parts = Annotated[list[InputPart], Field(min_length=1)]
_Content = Annotated[Text, BeforeValidator(joining(*_PARTS), json_schema_input_type=Text | _Parts)]
_Output = Annotated[MaybeText, BeforeValidator(joining(*_PARTS), json_schema_input_type=MaybeText | _Parts)]
_CallId = Annotated[str, Field(min_length=1, max_length=256)]


class _Message(Body):
    type: Literal["message", None] = Field(None, description="`message` unless given.")


# In this order of bases the type is read first, so that an item of an unknown type is refused for its type.
class InputItem(Turn, _Message):
    """A turn of the chat: one that is sent, or one of an earlier response's `output`."""

    content: _Content
    id: WithoutEffect = None
    status: WithoutEffect = None
    phase: WithoutEffect = None


class FunctionCall(CalledFunction):
    """A function that the assistant called: one of an earlier response's `output`."""

    type: Literal["function_call"]
    call_id: _CallId
    id: WithoutEffect = None
    status: WithoutEffect = None

    def turn(self) -> dict[str, Any]:
        """As a turn of its own."""
        call = {"id": self.call_id, "function": {"name": self.name, "arguments": self.arguments}}
        return {"role": "assistant", "tool_calls": [call]}


class FunctionCallOutput(Body):
    """What a function gave."""

    type: Literal["function_call_output"]
    call_id: _CallId
    output: _Output
    id: WithoutEffect = None
    status: WithoutEffect = None

    def turn(self) -> dict[str, Any]:
        """As a job has it."""
        return {"role": "tool", "tool_call_id": self.call_id, "content": self.output}


def _kind(item: Any) -> str:
    """Which form an item is read as. What is none of them is read as a message, which refuses its type."""
    given = item.get("type") if isinstance(item, dict) else None
    if given == "function_call":
        return CALL
    return OUTPUT if given == "function_call_output" else MESSAGE


def _as_items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


Item = Annotated[
    Annotated[InputItem, Tag(MESSAGE)]
    | Annotated[FunctionCall, Tag(CALL)]
    | Annotated[FunctionCallOutput, Tag(OUTPUT)],
    Discriminator(_kind),
]
_Items = Annotated[list[Item], Field(min_length=1, max_length=1000)]
Items = Annotated[_Items, BeforeValidator(_as_items, json_schema_input_type=Text | _Items)]


def turns_of(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The chat. Calls in a row, and what the assistant said before them, are one turn."""
    turns: list[dict[str, Any]] = []
    for item in items:
        turn = item.turn()
        if isinstance(item, FunctionCall) and turns and turns[-1]["role"] == "assistant":
            before = turns.pop()
            turn = before | {"tool_calls": before.get("tool_calls", []) + turn["tool_calls"]}
        turns.append(turn)
    return turns
