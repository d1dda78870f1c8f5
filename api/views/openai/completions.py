"""`/v1/chat/completions` and `/v1/completions`: a job that its caller waits for, or reads as it comes."""

from __future__ import annotations

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic_core import to_json

from api.current import services
from api.http.blueprints import OpenAIBlueprint, submits_jobs
from api.http.responses import JsonResponse
from api.openai.answers import Chunks, Kind, whole
from api.openai.fields import ChatCompletion, Completion
from api.openai.schemas import ChatCompletionObject, CompletionObject, OpenAIError
from api.openai.tools import reader
from api.parameters import KeyHeader
from api.streaming import event_response
from api.submission import read_request, submit
from api.views.openai import foreground, models

_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 413, 429, 500, 502, 503, 504), OpenAIError)

blueprint = OpenAIBlueprint("openai_completions", __name__, tag="OpenAI", url_prefix="/v1")


@blueprint.post("/chat/completions", responses=_ERRORS | {200: ChatCompletionObject})
@submits_jobs
def create_chat_completion(header: KeyHeader, body: ChatCompletion) -> Response:
    """The next turn of a chat; with `stream` as server-sent events"""
    return _answer("chat", body, header.idempotency_key)


@blueprint.post("/completions", responses=_ERRORS | {200: CompletionObject})
@submits_jobs
def create_completion(header: KeyHeader, body: Completion) -> Response:
    """A text's continuation; with `stream` as server-sent events"""
    return _answer("text", body, header.idempotency_key)


def _answer(kind: Kind, body: ChatCompletion | Completion, idempotency_key: str) -> Response:
    models.check(body.model)
    body.check()
    request = read_request(body.job(services().settings.max_tokens_limit))
    job = submit(request, idempotency_key=idempotency_key, max_tokens_param=body.tokens_param).job
    calls = reader(request.model_dump(include={"tools", "tool_choice", "parallel_tool_calls"}))
    if body.stream:
        chunks = Chunks(kind, job, body.include_usage, calls)
        return event_response(foreground.stream(job, chunks, stays=bool(idempotency_key)))
    job, result = foreground.result(job, stays=bool(idempotency_key))
    return JsonResponse(to_json(whole(kind, job, result, calls)))
