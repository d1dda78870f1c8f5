"""What a webhook endpoint is, and what is to be sent to it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from promptq.contract.webhooks import derive_secret

ENDPOINTS_PER_OWNER: Final = 20
ENDED_KEPT: Final = 1000
"""Deliveries that have ended, of one endpoint."""
ROTATION_SECONDS: Final = 86_400
"""How long after a rotation the last secret signs beside the new one."""
JOBS_PREFIX: Final = "wj_"
"""Of the ids of endpoints that nobody made: each has the events for one host that jobs named as their webhook."""
IDLE_SECONDS: Final = 86_400
"""How long such an endpoint, and what was delivered to it, is kept when nothing waits."""
DeliveryStatus = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as Redis has it. Times are seconds since the epoch, by the server's clock.

    Attributes:
        owner: name of the API key that it belongs to, or an empty string.
        events: the types of events that it is sent.
        version: of its secret: 1, and one more with each rotation.
        fingerprint: tells whether a secret is the one that its owner was shown.
        rotated_at: 0: never.
        disabled: why it is sent nothing; empty: it is.
        dropped: deliveries that were given up because too many waited.
    """

    id: str
    owner: str
    url: str
    events: tuple[str, ...]
    created_at: float = 0.0
    version: int = 1
    fingerprint: str = ""
    rotated_at: float = 0.0
    disabled: str = ""
    disabled_at: float = 0.0
    dropped: int = 0

    @classmethod
    def from_hash(cls, endpoint_id: str, fields: Mapping[bytes, bytes]) -> Endpoint:
        """Read the hash of `Keys.webhook`."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        return cls(
            endpoint_id, text["owner"], text["url"], tuple(text["events"].split()), float(text["created_at"]),
            int(text["version"]), text["fingerprint"], float(text.get("rotated_at", 0)), text.get("disabled", ""),
            float(text.get("disabled_at", 0)), int(text.get("dropped", 0)),
        )  # fmt: skip

    def as_hash(self) -> dict[str, str | int]:
        """What a new endpoint's hash has, its owner and its time aside."""
        own = {"url": self.url, "events": " ".join(self.events)}
        return {**own, "version": self.version, "fingerprint": self.fingerprint}

    @property
    def is_of_jobs(self) -> bool:
        """Whether nobody made it: jobs named its host as their webhook. It is never disabled."""
        return self.id.startswith(JOBS_PREFIX)

    @property
    def jobs_of(self) -> str | None:
        """Its owner where it is of jobs; None: somebody made it."""
        return self.owner if self.is_of_jobs else None

    def secrets(self, server_secret: str, now: float) -> list[str]:
        """What an event is signed with at a moment: the secret, and for a while after a rotation the last one."""
        rotates = self.version > 1 and now - self.rotated_at < ROTATION_SECONDS
        versions = [self.version, self.version - 1] if rotates else [self.version]
        named = secret_id(self.owner) if self.is_of_jobs else self.id
        return [derive_secret(server_secret, named, version) for version in versions]

    def has_secret_of(self, server_secret: str) -> bool:
        """Whether the server's secret is the one that the endpoint's was derived from."""
        if self.is_of_jobs:
            return check_of(server_secret, self.owner) == self.fingerprint
        return fingerprint(derive_secret(server_secret, self.id, self.version)) == self.fingerprint


def secret_id(owner: str) -> str:
    """What stands for an endpoint's id where the secret of a key's jobs, for webhooks of their own, is derived."""
    return f"jobs:{owner}"


def check_of(server_secret: str, owner: str) -> str:
    """Tells whether a process has the server's secret that another one had: by a version that signs nothing."""
    return fingerprint(derive_secret(server_secret, secret_id(owner), 0))


def fingerprint(secret: str) -> str:
    """What is kept of a secret: so little that it cannot be found again, and enough to tell two apart."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint.

    Attributes:
        event: the event's id, the same for all endpoints and at every try.
        data: the id of what the event is about.
        created_at: of the event, in seconds since the epoch.
        tries: made so far.
        trouble: of the last try, or an empty string.
        next_at, ended_at: in seconds since the epoch; 0: it has ended, or has not.
        url: where it is sent to, where that is the job's own webhook; empty: to the endpoint's.
    """

    id: str
    event: str
    type: str
    data: str
    created_at: float
    status: DeliveryStatus = "pending"
    tries: int = 0
    trouble: str = ""
    next_at: float = 0.0
    ended_at: float = 0.0
    url: str = ""

    @classmethod
    def decode(cls, raw: bytes) -> Delivery:
        """Read a value of `Keys.deliveries`."""
        return cls(**json.loads(raw))

    def encode(self) -> str:
        """The inverse."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def anew(self) -> Delivery:
        """The same, to be sent once more from the first try on."""
        return replace(self, status="pending", tries=0, trouble="", next_at=0.0, ended_at=0.0)


def new_delivery(
    event: str, endpoint_id: str, event_type: str, data: str, created_at: float, url: str = ""
) -> Delivery:
    """A delivery whose id follows from event and endpoint, so that noting it once more is found out."""
    digest = hashlib.sha256(f"{event} {endpoint_id}".encode()).hexdigest()[:32]
    return Delivery(f"whd_{digest}", event, event_type, data, created_at, url=url)
