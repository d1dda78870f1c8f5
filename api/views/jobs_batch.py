"""`POST /v1/jobs:batch`: many prompts in one request, each judged alone."""

from __future__ import annotations

from flask import Response
from flask_openapi3.models.tag import Tag

from api.errors import retry_after
from api.http.validation import KEY_IF_ANY, StrictBlueprint
from api.parameters import BatchHeaders
from api.schemas import Batch, BatchAnswer, BatchItem, ErrorResponse, ItemError
from api.services import services
from api.submission import submit_many
from api.submit_metrics import SubmitResult
from api.views.presenter import job_resource, json_answer
from promptq.contract.errors import PromptqError

blueprint = StrictBlueprint(
    "bulk", __name__, abp_tags=[Tag(name="jobs")], abp_security=KEY_IF_ANY, abp_responses={"default": ErrorResponse}
)


@blueprint.post(
    "/v1/jobs:batch",
    responses={200: BatchAnswer, **dict.fromkeys((400, 413, 422, 429, 503), ErrorResponse)},
)
def submit_batch(header: BatchHeaders, body: Batch) -> Response:
    """Submit up to 1,000 prompts

    Each has its job, or the error that it would have got alone, at its own place in the answer.
    """
    outcomes = submit_many(body.jobs, header.idempotency_key)
    items = [_item(outcome) for outcome in outcomes]
    refused = [item.error for item in items if item.error]
    response = json_answer(BatchAnswer(accepted=len(items) - len(refused), refused=len(refused), items=items))
    if waits := [error.retry_after_seconds for error in refused if error.retry_after_seconds]:
        response.headers["Retry-After"] = str(max(waits))
    return response


def _item(outcome: SubmitResult) -> BatchItem:
    if isinstance(outcome, PromptqError):
        seconds = retry_after(outcome)
        error = ItemError(type=outcome.type, message=outcome.message, param=outcome.param, retry_after_seconds=seconds)
        return BatchItem(job=None, error=error)
    return BatchItem(job=job_resource(outcome.job, services().settings.model_id), error=None)
