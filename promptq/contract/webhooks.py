"""Webhooks as Standard Webhooks has them: events, secrets, signatures. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

EventType = Literal[
    "job.succeeded", "job.failed", "job.cancelled", "job.expired",
    "response.completed", "response.failed", "response.cancelled", "response.incomplete",
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled",
]  # fmt: skip
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
SECRET_PREFIX: Final = "whsec_"


def derive_secret(server_secret: str, endpoint_id: str, version: int) -> str:
    """An endpoint's secret, as its owner is shown it: 32 bytes that follow from the server's secret.

    So none is kept anywhere: whoever reads all of Redis can sign nothing, and a rotation is one more version.

    Args:
        server_secret: of this deployment; every process that derives has the same.
        version: 1, and one more with each rotation.
    """
    message = f"promptq webhook {endpoint_id} {version}".encode()
    derived = hmac.new(server_secret.encode(), message, hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(derived).decode()


def body_of(event_id: str, event_type: EventType, created_at: float, data_id: str) -> bytes:
    """An event as it is sent: the same bytes at every try. `created_at`: seconds since the epoch."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(created_at),
        "type": event_type,
        "data": {"id": data_id},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def signed_headers(event_id: str, now: float, body: bytes, secrets: Sequence[str]) -> Mapping[str, str]:
    """What says whose an event is, and that it is fresh.

    Args:
        now: seconds since the epoch, of this try.
        secrets: the endpoint's; while it rotates its last one too.
    """
    timestamp = str(int(now))
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    signatures = [f"v1,{_signature(secret, signed)}" for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
