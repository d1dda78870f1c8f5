"""What is to be sent to webhook endpoints, and what was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from promptq.contract.chunks import chunks
from promptq.contract.webhook_records import ENDED_KEPT, IDLE_SECONDS, Delivery, Endpoint
from promptq.queue.connection import answering
from promptq.queue.listing import READ_AT_ONCE, ids_after
from promptq.queue.outbox import End
from promptq.queue.store import JobStore

NO_HOST: Final = ("", "")
"""In the place of a host's endpoint, where somebody made the endpoint."""


@dataclass(frozen=True, slots=True)
class Told:
    """Whom an end is told.

    Attributes:
        deliveries: by the id of the endpoint.
        own: of a job that has a webhook of its own: its host's endpoint, and the delivery.
    """

    end: End
    deliveries: Mapping[str, Delivery]
    own: tuple[Endpoint, Delivery] | None = None

    def arguments(self) -> list[Any]:
        """The deliver script's values."""
        noted = [[one, each.id, each.encode(), *NO_HOST] for one, each in self.deliveries.items()]
        if self.own:
            host, own = self.own
            noted.append([host.id, own.id, own.encode(), host.url, host.fingerprint])
        return [self.end.entry, self.end.owner, IDLE_SECONDS, *chain.from_iterable(noted)]


class DeliveryRecords:
    """The records of one deployment. All methods raise RedisUnavailable when Redis does not answer or cannot write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._keys = store.keys

    def note(self, endpoint_id: str, delivery: Delivery) -> bool:
        """Note a delivery of an event that is in no outbox. False: the endpoint is gone, or has it."""
        noted = [endpoint_id, delivery.id, delivery.encode(), *NO_HOST]
        return bool(self._store.scripts.run("deliver", ["", "", IDLE_SECONDS, *noted]) == 1)

    def note_all(self, told: Iterable[Told]) -> None:
        """Note the deliveries of each end, and take the end from the outbox: both, or neither."""
        self._store.scripts.run_together([("deliver", one.arguments()) for one in told])

    def due(self, endpoints: Sequence[str], count: int) -> dict[str, list[str]]:
        """By endpoint, the ids of deliveries whose time has come, the longest due first, at most so many each."""
        now = f"{self._store.now():.6f}"
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for endpoint_id in endpoints:
                pipe.zrangebyscore(self._keys.deliveries_due(endpoint_id), "-inf", now, 0, count)
            found: list[Any] = pipe.execute()
        return {one: [each.decode() for each in ids] for one, ids in zip(endpoints, found, strict=True)}

    def waiting(self, endpoints: Sequence[str]) -> dict[str, int]:
        """By endpoint, how many deliveries have not ended."""
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for endpoint_id in endpoints:
                pipe.zcard(self._keys.deliveries_due(endpoint_id))
            return dict(zip(endpoints, pipe.execute(), strict=True))

    def oldest(self, endpoint_id: str, count: int) -> list[Delivery]:
        """So many of the deliveries that wait, those first that were noted first."""
        found: list[str] = []
        ids = ids_after(self._store.client, self._keys.delivery_order(endpoint_id), "", "asc")
        for some in chunks(ids, READ_AT_ONCE):
            with answering(), self._store.client.pipeline(transaction=False) as pipe:
                for one in some:
                    pipe.zscore(self._keys.deliveries_due(endpoint_id), one)
                found += [one for one, due in zip(some, pipe.execute(), strict=True) if due is not None]
            if len(found) >= count:
                break
        return self.get_many(endpoint_id, found[:count])

    def get_many(self, endpoint_id: str, ids: Sequence[str]) -> list[Delivery]:
        """Those of these deliveries that are there."""
        if not ids:
            return []
        with answering():
            found: Any = self._store.client.hmget(self._keys.deliveries(endpoint_id), list(ids))
        return [Delivery.decode(raw) for raw in found if raw]

    def of(self, endpoint_id: str, after: str = "") -> Iterator[Delivery]:
        """An endpoint's deliveries behind one of them, the latest first, read as far as they are asked for."""
        ids = ids_after(self._store.client, self._keys.delivery_order(endpoint_id), after, "desc")
        for some in chunks(ids, READ_AT_ONCE):
            yield from self.get_many(endpoint_id, some)

    def end_try(
        self,
        endpoint_id: str,
        delivery: Delivery,
        disabled: str = "",
        *,
        dropped: bool = False,
        jobs_of: str | None = None,
    ) -> bool:
        """Write down what came of a try. False: the delivery waits no more.

        Args:
            delivery: as it stands now.
            disabled: why the endpoint is sent nothing from now on, or an empty string.
            dropped: it was given up because too many wait.
            jobs_of: whose jobs the endpoint is for, where nobody made it.
        """
        next_at = f"{delivery.next_at:.6f}" if delivery.status == "pending" else ""
        idle = ["", ""] if jobs_of is None else [IDLE_SECONDS, jobs_of]
        arguments = [endpoint_id, delivery.id, delivery.encode(), next_at, disabled, ENDED_KEPT, "1" if dropped else ""]
        return bool(self._store.scripts.run("delivery_end", [*arguments, *idle]) == 1)

    def send_again(self, endpoint: Endpoint, delivery: Delivery | None) -> bool:
        """Send a delivery once more, and let its endpoint have events again. False: it is gone.

        Args:
            delivery: None: only the endpoint is enabled.
        """
        again = [delivery.id, delivery.anew().encode()] if delivery else ["", ""]
        hosts = ["1", endpoint.owner] if endpoint.is_of_jobs else ["", ""]
        return bool(self._store.scripts.run("redeliver_event", [endpoint.id, *again, *hosts]) == 1)
