"""Functions that a model may call, and the calls in a chat's turns. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import from_json, to_json

from promptq.contract.strict import Strict

MAX_TOOLS: Final = 128
MAX_TOOLS_BYTES: Final = 65_536
"""All tools of a request together, as JSON."""
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
"""Around each call, in the Hermes form."""
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(Strict):
    """What a model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of its arguments; none: any object.")
    strict: bool | None = Field(None, description="Arguments fit where a call is required, whatever this says.")


class Tool(Strict):
    """A tool; functions are all that there is."""

    type: Literal["function"]
    function: Function


class FunctionChoice(Strict):
    """Which function, by its name."""

    name: FunctionName


class NamedTool(Strict):
    """The one function that is to be called."""

    type: Literal["function"]
    function: FunctionChoice


def _object_text(text: str) -> str:
    if not isinstance(from_json(text, allow_inf_nan=False), dict):
        raise ValueError("must be a JSON object")
    return text


class CalledFunction(Strict):
    """A function with its arguments."""

    name: FunctionName
    arguments: Annotated[str, AfterValidator(_object_text)] = Field(description="A JSON object, as text.")


class ToolCall(Strict):
    """One call in an assistant's turn."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction


def _checked(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two functions have the name {twice}")
    if len(to_json(tools)) > MAX_TOOLS_BYTES:
        raise ValueError(f"all tools together have at most {MAX_TOOLS_BYTES} bytes")
    return tools


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS), AfterValidator(_checked)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool


def check_choice(tools: list[Tool], choice: ToolChoice) -> None:
    """Let a choice through that these tools can follow.

    Raises:
        ValueError: a call is required and there are no tools, or not this one.
    """
    if isinstance(choice, NamedTool):
        if choice.function.name not in {tool.function.name for tool in tools}:
            raise ValueError(f"tool_choice: {choice.function.name} is none of the tools")
    elif choice == "required" and not tools:
        raise ValueError("tool_choice: there are no tools")


def absent(value: Any) -> bool:
    """Whether a field is as if it were not there: such are left out, so that requests without them stay the same."""
    return value is None or value == [] or value == "auto" or value is True
