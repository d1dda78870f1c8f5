"""`POST /v1/jobs:batch`: many prompts in one request, each accepted or refused by itself."""

from __future__ import annotations

from flask import Response

from api.errors import retry_after
from api.http.blueprints import StrictBlueprint, submits_jobs
from api.parameters import BatchHeaders
from api.presenter import job_resource, json_response
from api.schemas import Batch, BatchAnswer, BatchItem, ErrorResponse, ItemError
from api.submission import submit_many
from api.submit_metrics import SubmitResult
from promptq.contract.errors import PromptqError

blueprint = StrictBlueprint("jobs_batch", __name__, tag="jobs")


@blueprint.post(
    "/v1/jobs:batch",
    responses={200: BatchAnswer, **dict.fromkeys((400, 413, 422, 429, 503), ErrorResponse)},
)
@submits_jobs
def submit_batch(header: BatchHeaders, body: Batch) -> Response:
    """Submit up to 1,000 prompts

    Each has its job, or the error that it would have got alone, at its own place in the answer.
    """
    items = [_item(result) for result in submit_many(body.jobs, header.idempotency_key)]
    refused = [item.error for item in items if item.error]
    response = json_response(BatchAnswer(accepted=len(items) - len(refused), refused=len(refused), items=items))
    if waits := [error.retry_after_seconds for error in refused if error.retry_after_seconds]:
        response.headers["Retry-After"] = str(max(waits))
    return response


def _item(result: SubmitResult) -> BatchItem:
    if isinstance(result, PromptqError):
        seconds = retry_after(result)
        error = ItemError(type=result.type, message=result.message, param=result.param, retry_after_seconds=seconds)
        return BatchItem(job=None, error=error)
    return BatchItem(job=job_resource(result.job), error=None)
