"""The Hermes form of tool calls, as a grammar for texts that are calls and nothing else."""

from __future__ import annotations

from typing import Any

from promptq.contract.request import ANY_OBJECT, GenerateRequest
from promptq.contract.tools import CALL_CLOSE, CALL_OPEN, Function, NamedTool

WHITESPACE = 1
"""So many spaces in a row at most: a model might go on with them for ever."""


def structural_tag(request: GenerateRequest) -> dict[str, Any]:
    """xgrammar's structural tag of one call or more, each of which fits its function's parameters.

    xgrammar's own tags for such models let any text follow the first call; here nothing but calls comes.
    """
    format = {
        "type": "tags_with_separator",
        "tags": [_tag(function) for function in _callable(request)],
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": not request.parallel_tool_calls or isinstance(request.tool_choice, NamedTool),
    }
    return {"type": "structural_tag", "format": format}


def _callable(request: GenerateRequest) -> list[Function]:
    functions = [tool.function for tool in request.tools]
    if isinstance(choice := request.tool_choice, NamedTool):
        return [function for function in functions if function.name == choice.function.name]
    return functions


def _tag(function: Function) -> dict[str, Any]:
    schema = ANY_OBJECT | (function.parameters or {})
    return {
        "type": "tag",
        "begin": f'{CALL_OPEN}\n{{"name": "{function.name}", "arguments": ',
        "content": {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": WHITESPACE},
        "end": f"}}\n{CALL_CLOSE}",
    }
