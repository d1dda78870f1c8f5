"""`/v1/responses`: a job that is waited for, read as it comes, or left to itself and retrieved later."""

from __future__ import annotations

import json
from typing import Annotated, Any

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

from api import visible_jobs
from api.current import services
from api.errors import ResponseNotFound
from api.http.blueprints import OpenAIBlueprint, submits_jobs
from api.http.responses import JsonResponse
from api.openai.response_events import ResponseEvents
from api.openai.schemas import DeletedResponse, OpenAIError, ResponseObject
from api.parameters import KeyHeader
from api.streaming import event_response
from api.submission import read_request, submit
from api.views.openai import foreground
from promptq.contract.errors import InvalidRequest, JobNotFound
from promptq.contract.job import Job, Status
from promptq.openai.responses import ID_PREFIX, CreateResponse, resource, turn_of
from promptq.queue.responses import Asked, asked, delete

CANCEL_SECONDS = 2.0
"""How long a cancel waits for the row to stop, so that it can show what there is of the text."""
_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 413, 429, 500, 502, 503, 504), OpenAIError)
_FOUND: ResponseDict = {200: ResponseObject, **dict.fromkeys((400, 401, 404, 429, 503), OpenAIError)}

blueprint = OpenAIBlueprint("openai_responses", __name__, tag="OpenAI", url_prefix="/v1/responses")


class ResponsePath(BaseModel):
    """A response's id."""

    id: str


def _flag(value: str) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value)


class RetrieveQuery(BaseModel):
    """Query of `GET /v1/responses/{id}`."""

    model_config = ConfigDict(extra="allow")

    stream: Annotated[bool, BeforeValidator(_flag)] = False
    starting_after: int = Field(-1, ge=-1, le=10**9, description="The number of the last event that was received.")


@blueprint.post("", responses=_ERRORS | {200: ResponseObject})
@submits_jobs
def create_response(header: KeyHeader, body: CreateResponse) -> Response:
    """Answer; in the `background` at once, with `stream` as server-sent events"""
    body.check()
    job, shown = _submit(body, header.idempotency_key), body.shown()
    stays = bool(body.background or header.idempotency_key)
    if body.stream:
        return event_response(foreground.stream({job.id: ResponseEvents(job, shown)}, stays=stays))
    return _response(job if body.background else foreground.ended(job, stays=stays), shown)


@blueprint.get("/<id>", responses=_FOUND)
def retrieve_response(path: ResponsePath, query: RetrieveQuery) -> Response:
    """A response as it stands; with `stream` its events, after `starting_after`"""
    job, asked_for = _find(path.id)
    if not query.stream:
        return _response(job, asked_for.fields)
    telling = ResponseEvents(job, asked_for.fields, query.starting_after)
    return event_response(foreground.stream({job.id: telling}, stays=True))


@blueprint.post("/<id>/cancel", responses=_FOUND)
def cancel_response(path: ResponsePath) -> Response:
    """Stop a response in the background; one that has ended stays as it is"""
    job, asked_for = _find(path.id)
    if not asked_for.fields.get("background"):
        raise InvalidRequest("Only a response in the background can be cancelled.", param="id")
    if not job.status.is_terminal:
        foreground.cancel(job.id)
        job = visible_jobs.wait_for(job.id, CANCEL_SECONDS)
    return _response(job, asked_for.fields)


@blueprint.delete("/<id>", responses=_FOUND | {200: DeletedResponse})
def delete_response(path: ResponsePath) -> Response:
    """Delete a response with its prompt and its text; one that has not ended is cancelled"""
    job, _ = _find(path.id)
    if not job.status.is_terminal:
        foreground.cancel(job.id)
    delete(services().store, job.id)
    return JsonResponse(to_json({"id": path.id, "object": "response.deleted", "deleted": True}))


def _submit(body: CreateResponse, idempotency_key: str) -> Job:
    stored = json.dumps(body.shown()) if body.store is not False else ""
    fields = body.job_behind(_earlier(body), services().settings.max_tokens_limit)
    try:
        return submit(
            read_request(fields), idempotency_key=idempotency_key, max_tokens_param="max_output_tokens",
            response=stored, webhook=body.webhook,
        ).job  # fmt: skip
    except InvalidRequest as error:
        # Which of the chat's messages it is says nothing to who sent items, instructions and an earlier response.
        error.param = "input" if (error.param or "").partition(".")[0] == "messages" else error.param
        raise


def _find(response_id: str) -> tuple[Job, Asked]:
    """A response's job, and what it was asked.

    Raises:
        ResponseNotFound: there is none, or it is another key's.
    """
    if not response_id.startswith(ID_PREFIX):
        raise ResponseNotFound(response_id)
    try:
        job = visible_jobs.read(response_id.removeprefix(ID_PREFIX))
        return job, asked(services().store, job.id)
    except JobNotFound:
        raise ResponseNotFound(response_id) from None


def _earlier(body: CreateResponse) -> list[dict[str, Any]]:
    """The turns of the responses before, without their instructions, which hold for one response only."""
    if body.previous_response_id is None:
        return []
    try:
        job, before = _find(body.previous_response_id)
    except ResponseNotFound:
        job, before = None, None
    if job is None or before is None or job.status is not Status.SUCCEEDED or not (job.result and job.result.text):
        message = f"There is no text of a response {body.previous_response_id[:100]!r} to go on behind."
        raise InvalidRequest(message, param="previous_response_id")
    own = before.messages[1:] if before.fields.get("instructions") else before.messages
    return [*own, turn_of(job, before.fields)]


def _response(job: Job, shown: dict[str, Any]) -> Response:
    return JsonResponse(to_json(resource(job, shown)))
