"""Tools and their calls in OpenAI's forms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from promptq.contract.strict import Strict
from promptq.contract.tools import Function, FunctionChoice, FunctionName, NamedTool, Tool, ToolChoice
from promptq.openai.tool_calls import Call, CallReader, Said


class FlatTool(Strict):
    """A function that the model may call, as `/v1/responses` has it."""

    # It comes first, so that a tool of another type is refused for its type, and not for what else it has.
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def nested(self) -> Tool:
        """As chats have it."""
        return Tool(type="function", function=Function(**self.model_dump(exclude={"type"})))


class FlatNamedTool(Strict):
    """The one function that is to be called, as `/v1/responses` has it."""

    type: Literal["function"]
    name: FunctionName

    def nested(self) -> NamedTool:
        """As chats have it."""
        return NamedTool(type="function", function=FunctionChoice(name=self.name))


def _kind(choice: Any) -> str:
    """Of what is sent, and of what was read when it is written again."""
    return MANNER if isinstance(choice, str) else NAMED


MANNER, NAMED = "(manner)", "(named)"
FlatChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(MANNER)] | Annotated[FlatNamedTool, Tag(NAMED)],
    Discriminator(_kind),
]


def job_fields(tools: list[Tool] | None, choice: ToolChoice | None, parallel: bool | None) -> dict[str, Any]:
    """A job's fields about tools."""
    return {
        "tools": [tool.model_dump(exclude_none=True) for tool in tools or ()],
        "tool_choice": choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto",
        "parallel_tool_calls": parallel is not False,
    }


def reader(fields: Mapping[str, Any]) -> CallReader | None:
    """What reads the calls out of a text that was asked for with these fields; None: it has none."""
    if not fields.get("tools") or fields.get("tool_choice") == "none":
        return None
    return CallReader(most=1 if fields.get("parallel_tool_calls") is False else None)


@dataclass(frozen=True, slots=True)
class Turn:
    """The text of a turn beside its calls."""

    content: str | None
    calls: list[Call]


def turn(text: str, calls: CallReader | None) -> Turn:
    """A whole text, read."""
    if calls is None:
        return Turn(text, [])
    pieces = list(calls.read(text, whole=True))
    content = "".join(piece.text for piece in pieces if isinstance(piece, Said))
    found = [piece for piece in pieces if isinstance(piece, Call)]
    return Turn(content or (None if found else ""), found)


def chat_call(call: Call, job_id: str) -> dict[str, Any]:
    """A call in a chat's turn."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id(job_id), "type": "function", "function": function}


def finish_reason(reason: str, *, calls: bool) -> str:
    """Why a text ended: one that was cut has ended for that, whether it has calls or not."""
    return "tool_calls" if calls and reason == "stop" else reason
