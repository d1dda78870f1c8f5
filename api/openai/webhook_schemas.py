"""Webhook endpoints and deliveries, as the OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from promptq.contract.job_webhooks import WebhookURL
from promptq.contract.webhook_records import Delivery, DeliveryStatus, Endpoint
from promptq.contract.webhooks import EVENT_TYPES, EventType
from promptq.openai.body import Body


class CreateWebhook(Body):
    """An endpoint for events of your jobs, responses and batches."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"url": "https://example.org/hook", "events": ["batch.completed"]}}
    )

    url: WebhookURL = Field(description="Where events are sent to.")
    events: Annotated[list[EventType], Field(min_length=1, max_length=len(EVENT_TYPES))] | None = Field(
        None, description="Which events; by default all."
    )


class WebhookObject(BaseModel):
    """An endpoint."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    events: list[str]
    created_at: int
    rotated_at: int | None
    disabled_at: int | None
    disabled_reason: str | None = Field(description="Why nothing is sent to it; null: it is sent its events.")
    dropped: int = Field(description="Deliveries that were given up because too many waited.")


class WebhookWithSecret(WebhookObject):
    """An endpoint with its secret, which no other answer has."""

    secret: str = Field(description="`whsec_…`: what events are signed with.")


class JobsSecret(BaseModel):
    """What the events of jobs' own webhooks are signed with."""

    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str = Field(description="`whsec_…`: of all jobs and responses of this API key.")
    rotated_at: int | None


class WebhookList(BaseModel):
    """An API key's endpoints, the latest first."""

    object: Literal["list"] = "list"
    data: list[WebhookObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhook(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    deleted: Literal[True] = True


class EventData(BaseModel):
    """What an event is about."""

    id: str


class EventObject(BaseModel):
    """An event as it is sent."""

    id: str
    object: Literal["event"] = "event"
    created_at: int
    type: str
    data: EventData


class DeliveryObject(BaseModel):
    """An event on its way to an endpoint, or there."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event: EventObject
    url: str | None = Field(description="Where it is sent to, where a job named it; null: to the endpoint's.")
    status: DeliveryStatus
    tries: int
    last_error: str | None = Field(description="What came of the last try that failed.")
    next_try_at: int | None
    ended_at: int | None


class DeliveryList(BaseModel):
    """A page of deliveries, the latest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def webhook_object(endpoint: Endpoint) -> WebhookObject:
    """An endpoint as it is shown."""
    return WebhookObject(
        id=endpoint.id, url=endpoint.url, events=list(endpoint.events), created_at=int(endpoint.created_at),
        rotated_at=int(endpoint.rotated_at) or None, disabled_at=int(endpoint.disabled_at) or None,
        disabled_reason=endpoint.disabled or None, dropped=endpoint.dropped,
    )  # fmt: skip


def with_secret(endpoint: Endpoint, secret: str) -> WebhookWithSecret:
    """An endpoint as it is shown once, after its secret was made."""
    return WebhookWithSecret(**webhook_object(endpoint).model_dump(), secret=secret)


def delivery_object(delivery: Delivery) -> DeliveryObject:
    """A delivery as it is shown."""
    event = EventObject(
        id=delivery.event, created_at=int(delivery.created_at), type=delivery.type, data=EventData(id=delivery.data)
    )
    return DeliveryObject(
        id=delivery.id, event=event, url=delivery.url or None, status=delivery.status, tries=delivery.tries,
        last_error=delivery.trouble or None, next_try_at=int(delivery.next_at) or None,
        ended_at=int(delivery.ended_at) or None,
    )  # fmt: skip
