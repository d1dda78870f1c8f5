"""The webhook of one job or response: an address that is told of its end alone. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from promptq.contract.request import JobRequest
from promptq.contract.strict import Strict
from promptq.contract.webhook_records import JOBS_PREFIX, Endpoint, check_of
from promptq.contract.webhooks import JobEvent, ResponseEvent, checked_url, host_of

HOSTS_PER_OWNER: Final = 1000
"""Addresses' hosts that have queues of their own; those of further ones share one."""
EVERY_OTHER: Final = "*"
WebhookURL = Annotated[
    str, AfterValidator(checked_url), Field(min_length=1, max_length=2048, pattern="^https?://[!-~]+$")
]


class JobWebhook(Strict):
    """Who is told of a job's end."""

    url: WebhookURL = Field(description="Where its event is sent to.")
    events: Annotated[list[JobEvent], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Which ends are told; by default all."
    )


class ResponseWebhook(Strict):
    """Who is told of a response's end."""

    url: WebhookURL = Field(description="Where its event is sent to.")
    events: Annotated[list[ResponseEvent], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Which ends are told; by default all."
    )


class WebhookJob(JobRequest):
    """A job that an address may be told of."""

    webhook: JobWebhook | None = Field(
        None, description="Told of this job's end alone, beside the webhook endpoints of its API key."
    )


@dataclass(frozen=True, slots=True)
class OwnWebhook:
    """A job's webhook as it is kept with the job.

    Attributes:
        events: the types that are told; empty: all.
        check: fingerprint of the server's secret, as `check_of` gives it.
    """

    url: str
    events: Sequence[str]
    check: str

    @classmethod
    def of(cls, given: JobWebhook | ResponseWebhook, server_secret: str, owner: str) -> OwnWebhook:
        """What is to be kept of a request's webhook."""
        return cls(given.url, given.events or (), check_of(server_secret, owner))

    @classmethod
    def decode(cls, text: str) -> OwnWebhook | None:
        """Read the field of a job's hash. None: it is another program's."""
        try:
            own = cls(**json.loads(text))
            return cls(checked_url(own.url), tuple(own.events), own.check)
        except (ValueError, TypeError, AttributeError):
            return None

    def encode(self) -> str:
        """The inverse."""
        fields = {"url": self.url, "events": list(self.events), "check": self.check}
        return json.dumps(fields, separators=(",", ":"))

    def endpoint(self, owner: str) -> Endpoint:
        """The endpoint in whose queue its events wait: that of its host."""
        host = host_of(self.url)
        return Endpoint(_id(owner, host), owner, host, (), fingerprint=self.check)


def shared_host(host: Endpoint) -> Endpoint:
    """The endpoint that the hosts of an owner share of which there are too many."""
    return replace(host, id=_id(host.owner, EVERY_OTHER), url=EVERY_OTHER)


def _id(owner: str, host: str) -> str:
    return JOBS_PREFIX + hashlib.sha256(f"{owner}\0{host}".encode()).hexdigest()[:32]
