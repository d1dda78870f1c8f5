"""`/v1/chat/completions` and `/v1/completions`: a job that its caller waits for, or reads as it comes."""

from __future__ import annotations

from functools import partial

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic_core import to_json

from api.current import services
from api.http.blueprints import OpenAIBlueprint, submits_jobs
from api.http.responses import JsonResponse
from api.openai.schemas import ChatCompletionObject, CompletionObject, OpenAIError
from api.parameters import KeyHeader
from api.streaming import event_response
from api.views.openai import foreground
from promptq.openai.answers import Completions, Kind, whole
from promptq.openai.fields import ChatCompletion, Completion
from promptq.openai.tools import reader

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
    body.check()
    requests = body.jobs(services().settings.max_tokens_limit)
    jobs = foreground.submit_all(requests, idempotency_key, body.tokens_param)
    stays, prompts = bool(idempotency_key), len(body.prompts)
    calls = partial(reader, requests[0])
    if body.stream:
        completions = Completions(kind, jobs, body.include_usage, prompts, calls)
        return event_response(foreground.stream(completions.forms(), stays=stays))
    return JsonResponse(to_json(whole(kind, jobs, foreground.results(jobs, stays=stays), prompts, calls)))
