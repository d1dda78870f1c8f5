"""What every request passes before it is queued, whichever program queues it. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from promptq.contract.catalogue import Catalogue, ModelEntry
from promptq.contract.errors import InvalidJson, InvalidRequest, PromptqError
from promptq.contract.request import JobRequest

MAX_PARAM_CHARS = 200


def resolve(catalogue: Catalogue, request: JobRequest) -> tuple[ModelEntry, JobRequest]:
    """The model that a request names, and the request with the adapter that the name may have.

    Raises:
        ModelNotFound: there is no such model.
        InvalidRequest: it names two adapters.
    """
    entry, adapter = catalogue.find(request.model)
    if request.adapter and adapter not in ("", request.adapter):
        raise InvalidRequest(f"adapter: the model names another one, {adapter!r}.", param="adapter")
    adapter = adapter or request.adapter
    if adapter and adapter not in entry.adapters:
        raise InvalidRequest(f"The model {entry.name} has no adapter {adapter!r}.", param="adapter")
    return entry, request.model_copy(update={"adapter": adapter}) if adapter else request


def check_limits(request: JobRequest, max_prompt_chars: int, max_tokens: int, max_tokens_param: str) -> None:
    """Let a request through that is within the limits of the settings.

    Args:
        max_tokens_param: what the client calls `max_tokens`.

    Raises:
        InvalidRequest: its prompt is too long, or it asks for too long a text.
    """
    if request.input_chars > max_prompt_chars:
        message = f"The prompt has {request.input_chars} characters; the limit is {max_prompt_chars}."
        raise InvalidRequest(message, param="messages" if request.prompt is None else "prompt")
    if request.task == "generate" and request.max_tokens > max_tokens:
        raise InvalidRequest(f"The limit is {max_tokens}.", param=max_tokens_param)


def invalid_request(error: ValidationError) -> PromptqError:
    """The first thing that pydantic found wrong, with the field it is about."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidJson(first["msg"], param="body")
    # A check of the whole model has no field; ours is about prompt and messages together.
    whole = _named(first["msg"]) or "prompt" if first["type"] == "value_error" else "body"
    steps = [str(step) for step in first["loc"]]
    # One in brackets tells only which of a field's forms was taken.
    param = ".".join(step for step in steps if not step.startswith("(")) or whole
    return InvalidRequest(first["msg"].removeprefix("Value error, "), param=param[:MAX_PARAM_CHARS])


def _named(message: str) -> str:
    """The field that a check of the whole model names before a colon."""
    name, colon, _ = message.removeprefix("Value error, ").partition(": ")
    return name if colon and name.isidentifier() else ""
