"""What is to be sent to webhook endpoints, and what was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from promptq.contract.chunks import chunks
from promptq.contract.webhook_records import ENDED_KEPT, Delivery
from promptq.queue.connection import answering
from promptq.queue.listing import READ_AT_ONCE, ids_after
from promptq.queue.outbox import End
from promptq.queue.store import JobStore


class DeliveryRecords:
    """The records of one deployment. All methods raise RedisUnavailable when Redis does not answer or cannot write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._keys = store.keys

    def note(self, endpoint_id: str, delivery: Delivery) -> bool:
        """Note a delivery of an event that is in no outbox. False: the endpoint is gone, or has it."""
        return bool(self._store.scripts.run("deliver", ["", endpoint_id, delivery.id, delivery.encode()]) == 1)

    def note_all(self, told: Iterable[tuple[Mapping[str, Delivery], End]]) -> None:
        """Note the deliveries of each end, by endpoint, and take the end from the outbox: both, or neither."""
        calls = [
            ("deliver", [end.entry, *chain.from_iterable((one, each.id, each.encode()) for one, each in noted.items())])
            for noted, end in told
        ]
        self._store.scripts.run_together(calls)

    def due(self, endpoints: Sequence[str], count: int) -> dict[str, list[str]]:
        """By endpoint, the ids of deliveries whose time has come, the longest due first, at most so many each."""
        now = f"{self._store.now():.6f}"
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for endpoint_id in endpoints:
                pipe.zrangebyscore(self._keys.deliveries_due(endpoint_id), "-inf", now, 0, count)
            found: list[Any] = pipe.execute()
        return {one: [each.decode() for each in ids] for one, ids in zip(endpoints, found, strict=True)}

    def waiting(self, endpoints: Sequence[str]) -> int:
        """How many deliveries have not ended, of these endpoints."""
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for endpoint_id in endpoints:
                pipe.zcard(self._keys.deliveries_due(endpoint_id))
            return sum(pipe.execute())

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

    def end_try(self, endpoint_id: str, delivery: Delivery, disabled: str = "") -> bool:
        """Write down what came of a try. False: the delivery waits no more.

        Args:
            delivery: as it stands now.
            disabled: why the endpoint is sent nothing from now on, or an empty string.
        """
        next_at = f"{delivery.next_at:.6f}" if delivery.status == "pending" else ""
        arguments = [endpoint_id, delivery.id, delivery.encode(), next_at, disabled, ENDED_KEPT]
        return bool(self._store.scripts.run("delivery_end", arguments) == 1)

    def send_again(self, endpoint_id: str, delivery: Delivery | None) -> bool:
        """Send a delivery once more, and let its endpoint have events again. False: it is gone.

        Args:
            delivery: None: only the endpoint is enabled.
        """
        again = [delivery.id, delivery.anew().encode()] if delivery else ["", ""]
        return bool(self._store.scripts.run("redeliver_event", [endpoint_id, *again]) == 1)
