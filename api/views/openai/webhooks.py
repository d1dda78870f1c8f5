"""`/v1/webhook_endpoints`: who is told of ends, and what they were told. The dispatcher sends it."""

from __future__ import annotations

import secrets
from typing import Literal

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, ConfigDict, Field

from api.current import owner, services
from api.errors import WebhookConflict, WebhookMissing
from api.http.blueprints import OpenAIBlueprint
from api.openai.pages import page_fields
from api.openai.schemas import OpenAIError
from api.openai.webhook_schemas import (
    CreateWebhook,
    DeletedWebhook,
    DeliveryList,
    DeliveryObject,
    WebhookList,
    WebhookObject,
    WebhookWithSecret,
    delivery_object,
    webhook_object,
    with_secret,
)
from api.presenter import json_response
from api.webhook_checks import check_url, server_secret
from promptq.contract.webhook_records import ENDPOINTS_PER_OWNER, Delivery, Endpoint, fingerprint, new_delivery
from promptq.contract.webhooks import EVENT_TYPES, TEST, derive_secret

_ERRORS: ResponseDict = dict.fromkeys((400, 401, 404, 409, 413, 429, 503), OpenAIError)

blueprint = OpenAIBlueprint("webhooks", __name__, tag="Webhooks", url_prefix="/v1/webhook_endpoints")


class WebhookPath(BaseModel):
    """An endpoint's id."""

    id: str


class DeliveryPath(WebhookPath):
    """An endpoint's id, and a delivery's."""

    delivery: str


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="allow")

    after: str = Field("", description="Goes on behind this one.")
    limit: int = Field(20, ge=1, le=100)


class EndpointsQuery(PageQuery):
    """Which page of which endpoints."""

    of: Literal["key", "jobs"] = Field(
        "key", description="key: those that were made; jobs: one for each host that jobs named as their webhook."
    )


@blueprint.post("", responses=_ERRORS | {200: WebhookWithSecret})
def create_webhook_endpoint(body: CreateWebhook) -> Response:
    """Be told of ends at an address

    The answer has the endpoint's secret, once.
    """
    check_url(body.url, "url")
    endpoint_id = f"we_{secrets.token_hex(16)}"
    secret = derive_secret(server_secret(), endpoint_id, 1)
    events = tuple(dict.fromkeys(body.events or EVENT_TYPES))
    endpoint = Endpoint(endpoint_id, owner(), body.url, events, fingerprint=fingerprint(secret))
    if not services().webhooks.put(endpoint):
        raise WebhookConflict(f"An API key has at most {ENDPOINTS_PER_OWNER} endpoints; delete one.", param="url")
    return json_response(with_secret(find(endpoint_id), secret))


@blueprint.get("", responses=_ERRORS | {200: WebhookList})
def list_webhook_endpoints(query: EndpointsQuery) -> Response:
    """Your endpoints, the latest first"""
    records = services().webhooks
    found = (records.of if query.of == "key" else records.hosts_of)(owner(), query.after)
    return json_response(WebhookList(**page_fields(map(webhook_object, found), query.limit)))


@blueprint.get("/<id>", responses=_ERRORS | {200: WebhookObject})
def read_webhook_endpoint(path: WebhookPath) -> Response:
    """An endpoint as it stands"""
    return json_response(webhook_object(find(path.id)))


@blueprint.delete("/<id>", responses=_ERRORS | {200: DeletedWebhook})
def delete_webhook_endpoint(path: WebhookPath) -> Response:
    """Be told no more; what was to be sent is dropped"""
    endpoint = find(path.id)
    services().webhooks.drop(endpoint)
    return json_response(DeletedWebhook(id=endpoint.id))


@blueprint.post("/<id>/rotate", responses=_ERRORS | {200: WebhookWithSecret})
def rotate_webhook_secret(path: WebhookPath) -> Response:
    """Replace an endpoint's secret; for a day the last one signs too

    The answer has the new secret, once.
    """
    endpoint = _made(path.id)
    secret = derive_secret(server_secret(), endpoint.id, endpoint.version + 1)
    if not services().webhooks.rotate(endpoint, fingerprint(secret)):
        raise WebhookConflict("The secret was rotated by another call at the same time.", param="id")
    return json_response(with_secret(find(endpoint.id), secret))


@blueprint.post("/<id>/test", responses=_ERRORS | {200: DeliveryObject})
def test_webhook_endpoint(path: WebhookPath) -> Response:
    """Send an event of type `endpoint.test`; an endpoint that was disabled is sent its events again"""
    endpoint, parts = _made(path.id), services()
    delivery = new_delivery(f"evt_{secrets.token_hex(16)}", endpoint.id, TEST, endpoint.id, parts.store.now())
    if not parts.deliveries.note(endpoint.id, delivery):
        raise WebhookMissing("webhook endpoint", endpoint.id)
    parts.deliveries.send_again(endpoint, None)
    return json_response(delivery_object(delivery))


@blueprint.get("/<id>/deliveries", responses=_ERRORS | {200: DeliveryList})
def list_webhook_deliveries(path: WebhookPath, query: PageQuery) -> Response:
    """What was sent to an endpoint, and what is to be, the latest first"""
    found = services().deliveries.of(find(path.id).id, query.after)
    return json_response(DeliveryList(**page_fields(map(delivery_object, found), query.limit)))


@blueprint.post("/<id>/deliveries/<delivery>/redeliver", responses=_ERRORS | {200: DeliveryObject})
def redeliver_webhook_event(path: DeliveryPath) -> Response:
    """Send an event once more, under the same id, with all its tries before it

    An endpoint that was disabled is sent its events again.
    """
    endpoint = find(path.id)
    delivery = _delivery(endpoint, path.delivery)
    if not services().deliveries.send_again(endpoint, delivery):
        raise WebhookMissing("delivery", path.delivery, "delivery")
    return json_response(delivery_object(_delivery(endpoint, path.delivery)))


def find(endpoint_id: str) -> Endpoint:
    """An endpoint that the caller may see.

    Raises:
        WebhookMissing: there is none, or it is another key's.
    """
    parts = services()
    endpoint = parts.webhooks.get(endpoint_id) if endpoint_id.isascii() and endpoint_id.isprintable() else None
    if endpoint is None or not parts.access.owns(owner(), endpoint.owner):
        raise WebhookMissing("webhook endpoint", endpoint_id)
    return endpoint


def _made(endpoint_id: str) -> Endpoint:
    """The same, if the caller made it.

    Raises:
        WebhookConflict: it is that of a host which jobs named.
    """
    endpoint = find(endpoint_id)
    if endpoint.is_of_jobs:
        raise WebhookConflict("Only an endpoint that was made has a secret of its own, and is tested.", param="id")
    return endpoint


def _delivery(endpoint: Endpoint, delivery_id: str) -> Delivery:
    known = delivery_id.isascii() and delivery_id.isprintable()
    found = services().deliveries.get_many(endpoint.id, [delivery_id] if known else [])
    if not found:
        raise WebhookMissing("delivery", delivery_id, "delivery")
    return found[0]
