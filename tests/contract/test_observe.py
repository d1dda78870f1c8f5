"""What is read of workers and of the scaler, whatever else lies there."""

from __future__ import annotations

import json

from promptq.queue.observe import FleetRecord, Observer
from tests.fakes import TimedStore, keys


def test_what_a_later_scaler_says_beside_is_passed_over(store: TimedStore) -> None:
    observer = Observer(store.client, store.settings)
    observer.publish_fleet(FleetRecord(0, 3, 1))
    said = json.loads(store.client.get(keys.fleet()) or "")
    store.client.set(keys.fleet(), json.dumps(said | {"moon": "full"}))
    assert observer.fleet() == FleetRecord(0, 3, 1, [], pools=[])


def test_another_application_s_workers_are_none_of_ours(store: TimedStore) -> None:
    for name, fields, queues in (
        ("ours", {"birth": "2026-01-31T12:00:00Z", "metrics_url": "http://h:1"}, ["default", "low"]),
        ("theirs", {"birth": "2026-01-31T12:00:00Z"}, ["default"]),
        ("elsewhere", {"birth": "2026-01-31T12:00:00Z"}, ["mails"]),
    ):
        store.client.hset(keys.worker(name), mapping=fields)
        store.client.sadd(keys.workers(), keys.worker(name))
        for queue in queues:
            store.client.sadd(keys.workers_of(queue), keys.worker(name))
    store.client.sadd(keys.workers_of("default"), keys.worker("gone"))
    assert [worker.name for worker in Observer(store.client, store.settings).workers()] == ["ours"]
    assert store.client.sismember(keys.workers_of("default"), keys.worker("gone")) == 0
    assert store.client.sismember(keys.workers(), keys.worker("theirs")) == 1
