"""`POST /generate`: the plain synchronous call."""

from __future__ import annotations

from flask import Response
from flask_openapi3.types import ResponseDict

from api import visible_jobs
from api.current import client_has_left, services
from api.errors import JobFailed, JobUnfinished
from api.http.blueprints import StrictBlueprint, submits_jobs
from api.presenter import json_response
from api.schemas import ErrorResponse, Generate, Generated
from api.submission import submit
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Job, Status
from promptq.contract.request import JobRequest

_RESPONSES: ResponseDict = dict.fromkeys((400, 413, 422, 429, 502, 503, 504), ErrorResponse)

blueprint = StrictBlueprint("generate", __name__, tag="generate")


@blueprint.post("/generate", responses=_RESPONSES | {200: Generated})
@submits_jobs
def generate(body: Generate) -> Response:
    """Generate, and wait for the text

    504 with the job's id when it takes too long; the job goes on.
    """
    request = JobRequest.model_validate({"prompt": body.prompt, "max_tokens": body.max_new_tokens})
    job = submit(request, max_tokens_param="max_new_tokens").job
    if not job.status.is_terminal:
        seconds = services().settings.generate_timeout_seconds
        job = services().waiters.wait_for(job.id, seconds, visible_jobs.read, client_has_left)
    return json_response(_text(job))


def _text(job: Job) -> Generated:
    if not job.status.is_terminal:
        raise JobUnfinished(job.id, f"has not ended yet; ask GET /v1/jobs/{job.id}.")
    if job.error and job.error.type == "prompt_too_long":
        raise InvalidRequest(job.error.message, param="prompt")
    if job.status is not Status.SUCCEEDED or job.result is None:
        reason = f"failed: {job.error.message} ({job.error.type})" if job.error else f"ended as {job.status}."
        raise JobFailed(job.id, reason)
    return Generated(output=job.result.text, cache_hit=job.cache == "hit", job_id=job.id)
