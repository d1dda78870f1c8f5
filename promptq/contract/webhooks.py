"""Webhooks as Standard Webhooks has them: events, secrets, signatures. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from promptq.contract.addresses import may_be_public

JobEvent = Literal["job.succeeded", "job.failed", "job.cancelled", "job.expired"]
ResponseEvent = Literal["response.completed", "response.failed", "response.cancelled", "response.incomplete"]
BatchEvent = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
EventType = Literal[JobEvent, ResponseEvent, BatchEvent]
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
TEST: Final = "endpoint.test"
"""The type of the event by which an owner tries an endpoint; nobody needs to choose it."""
SECRET_PREFIX: Final = "whsec_"
_PRINTABLE: Final = re.compile("[!-~]+")


def checked_url(url: str) -> str:
    """An address that events can be sent to.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _port_of(parts):
        raise ValueError("must be an http or https address with a host")
    if parts.username is not None or parts.fragment or not _PRINTABLE.fullmatch(url):
        raise ValueError("must have no user, no fragment, no spaces and ASCII characters only")
    return url


def refuse_inner(url: str) -> None:
    """Let an address through that can be a public one; what its name means is looked up when it is sent to.

    Raises:
        ValueError: it is plainly private.
    """
    if not may_be_public(urlsplit(url).hostname or ""):
        raise ValueError("must not be a private, loopback or link-local address")


def host_of(url: str) -> str:
    """Scheme, host and port of an address: what fails together, and waits together."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _port_of(parts: SplitResult) -> int:
    """0: it is no port."""
    try:
        return 80 if parts.port is None else parts.port
    except ValueError:
        return 0


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


def body_of(event_id: str, event_type: str, created_at: float, data_id: str) -> bytes:
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
