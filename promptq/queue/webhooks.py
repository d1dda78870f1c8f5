"""The records of webhook endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from promptq.contract.webhook_records import ENDPOINTS_PER_OWNER, Endpoint
from promptq.queue.connection import answering
from promptq.queue.listing import ids_after
from promptq.queue.store import JobStore


class WebhookRecords:
    """The records of one deployment. All methods raise RedisUnavailable when Redis does not answer or cannot write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._keys = store.keys

    def put(self, endpoint: Endpoint) -> bool:
        """Write a new endpoint down. False: its owner has as many as one may have."""
        fields = chain.from_iterable(endpoint.as_hash().items())
        reply = self._store.scripts.run("webhook_put", [endpoint.id, endpoint.owner, ENDPOINTS_PER_OWNER, *fields])
        return bool(reply == b"done")

    def get(self, endpoint_id: str) -> Endpoint | None:
        """An endpoint; None where there is none."""
        return self.get_many([endpoint_id])[0]

    def get_many(self, ids: Sequence[str]) -> list[Endpoint | None]:
        """Endpoints in one round trip; None for one that is not there."""
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for endpoint_id in ids:
                pipe.hgetall(self._keys.webhook(endpoint_id))
            hashes: list[Any] = pipe.execute()
        return [Endpoint.from_hash(one, fields) if fields else None for one, fields in zip(ids, hashes, strict=True)]

    def of(self, owner: str, after: str = "") -> Iterator[Endpoint]:
        """An owner's endpoints behind one of them, the latest first."""
        ids = list(ids_after(self._store.client, self._keys.webhooks(owner), after, "desc"))
        yield from filter(None, self.get_many(ids))

    def hosts_of(self, owner: str, after: str = "") -> Iterator[Endpoint]:
        """The endpoints of hosts that an owner's jobs named, those that something waits for first."""
        ids = list(ids_after(self._store.client, self._keys.webhook_hosts(owner), after, "desc"))
        yield from filter(None, self.get_many(ids))

    def count_hosts(self, owner: str) -> int:
        """How many these are."""
        with answering():
            return int(self._store.client.zcard(self._keys.webhook_hosts(owner)))

    def signing(self, ids: Sequence[str]) -> Iterator[Endpoint]:
        """Endpoints with the versions of the secrets that sign for them; one that is gone is left out."""
        found = [endpoint for endpoint in self.get_many(ids) if endpoint]
        versions = self.secrets_of({endpoint.owner for endpoint in found if endpoint.is_of_jobs})
        for endpoint in found:
            version, rotated_at = versions[endpoint.owner] if endpoint.is_of_jobs else (0, 0.0)
            yield replace(endpoint, version=version, rotated_at=rotated_at) if endpoint.is_of_jobs else endpoint

    def secrets_of(self, owners: Iterable[str]) -> dict[str, tuple[int, float]]:
        """By owner, the version of the secret that signs for their jobs, and when it was rotated; 0: never."""
        names = list(owners)
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for owner in names:
                pipe.hmget(self._keys.webhook_secret(owner), "version", "rotated_at")
            rows: list[Any] = pipe.execute()
        return {
            owner: (int(version or 1), float(rotated or 0))
            for owner, (version, rotated) in zip(names, rows, strict=True)
        }

    def rotate_secret(self, owner: str, version: int) -> bool:
        """Give an owner's jobs their next secret. False: another has done it meanwhile."""
        return bool(self._store.scripts.run("webhook_secret", [owner, version]) == 1)

    def drop(self, endpoint: Endpoint) -> None:
        """Forget an endpoint, and all that was to be sent to it."""
        self._store.scripts.run("webhook_drop", [endpoint.id, endpoint.owner])

    def rotate(self, endpoint: Endpoint, fingerprint: str) -> bool:
        """Give an endpoint its next secret. False: it is gone, or another has done it meanwhile."""
        return bool(self._store.scripts.run("webhook_rotate", [endpoint.id, endpoint.version, fingerprint]) == 1)

    def active(self) -> list[str]:
        """The ids of endpoints that something waits to be sent to."""
        with answering():
            ids: Any = self._store.client.smembers(self._keys.webhooks_active())
        return sorted(one.decode() for one in ids)
