"""`/v1/embeddings`: a job for each input, for all of which the caller waits."""

from __future__ import annotations

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic_core import to_json

from api.http.blueprints import OpenAIBlueprint, submits_jobs
from api.http.responses import JsonResponse
from api.openai.schemas import EmbeddingList, OpenAIError
from api.parameters import KeyHeader
from api.views.openai import foreground
from promptq.contract.errors import PromptqError
from promptq.openai.embeddings import PARAMS, EmbeddingsRequest, answer

_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 413, 429, 500, 502, 503, 504), OpenAIError)

blueprint = OpenAIBlueprint("openai_embeddings", __name__, tag="OpenAI", url_prefix="/v1")


@blueprint.post("/embeddings", responses=_ERRORS | {200: EmbeddingList})
@submits_jobs
def create_embeddings(header: KeyHeader, body: EmbeddingsRequest) -> Response:
    """The embedding of each input"""
    try:
        jobs = foreground.submit_all(body.jobs(), header.idempotency_key)
        results = foreground.results(jobs, stays=bool(header.idempotency_key))
    except PromptqError as error:
        error.param = PARAMS.get(error.param, error.param) if error.param else None
        raise
    return JsonResponse(to_json(answer(jobs[0].queue.model, results, body.encoding_format)))
