"""`/v1/webhook_secret`: what the events of jobs' own webhooks are signed with, one secret an API key."""

from __future__ import annotations

from flask import Response
from flask_openapi3.types import ResponseDict

from api.current import owner, services
from api.errors import WebhookConflict
from api.http.blueprints import OpenAIBlueprint
from api.openai.schemas import OpenAIError
from api.openai.webhook_schemas import JobsSecret
from api.presenter import json_response
from api.webhook_checks import server_secret
from promptq.contract.webhook_records import secret_id
from promptq.contract.webhooks import derive_secret

_ERRORS: ResponseDict = dict.fromkeys((401, 409, 429, 503), OpenAIError)

blueprint = OpenAIBlueprint("webhook_secret", __name__, tag="Webhooks", url_prefix="/v1/webhook_secret")


@blueprint.get("", responses=_ERRORS | {200: JobsSecret})
def read_webhook_secret() -> Response:
    """The secret of your jobs' and responses' own webhooks"""
    return _shown()


@blueprint.post("/rotate", responses=_ERRORS | {200: JobsSecret})
def rotate_jobs_secret() -> Response:
    """Replace it; for a day the last one signs too"""
    version, _ = services().webhooks.secrets_of([owner()])[owner()]
    if not services().webhooks.rotate_secret(owner(), version):
        raise WebhookConflict("The secret was rotated by another call at the same time.")
    return _shown()


def _shown() -> Response:
    version, rotated_at = services().webhooks.secrets_of([owner()])[owner()]
    secret = derive_secret(server_secret(), secret_id(owner()), version)
    return json_response(JobsSecret(secret=secret, rotated_at=int(rotated_at) or None))
