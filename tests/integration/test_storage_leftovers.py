"""What processes leave in the storage of files when they die between two steps is deleted, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dispatcher import sweep
from dispatcher.expiry import ExpiryDuty
from dispatcher.lease_keeper import LeaseKeeper
from dispatcher.sweep import SweepDuty
from promptq.contract.batches import BatchRecord
from promptq.contract.files import FileRecord, part_path, path_of
from promptq.contract.metrics import DispatcherMetrics
from promptq.queue.batches import LEASE, BatchRecords
from promptq.queue.files import UPLOAD_SECONDS, FileRecords
from promptq.queue.leases import hold, let_go
from promptq.storage.storage import Storage
from tests.fakes import TimedStore, keys
from tests.processes import wait_until

NOW = 1_800_000_000.0


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


def expire(store: TimedStore, storage: Storage, now: float) -> None:
    """As a dispatcher does, at this moment."""
    store.at = now
    ExpiryDuty(FileRecords(store), storage, DispatcherMetrics(CollectorRegistry())).run()


def test_an_upload_that_was_never_put_down_is_deleted_a_day_later(store: TimedStore, storage: Storage) -> None:
    files = FileRecords(store)
    store.at = NOW
    for name in ("lost", "kept"):
        files.expect(name)
        storage.write(path_of(name), [b"x"])
    storage.write(path_of("lost.0123.tmp"), [b"x"])
    files.put(FileRecord("kept", "", "lines", "batch", 1), None)
    expire(store, storage, NOW + UPLOAD_SECONDS - 1)
    assert sorted(storage.names("files")) == ["kept", "lost", "lost.0123.tmp"]
    expire(store, storage, NOW + UPLOAD_SECONDS + 1)
    assert storage.names("files") == ["kept"]
    assert store.client.zcard(keys.file_expiry()) == 0
    assert files.get("kept")


@pytest.mark.parametrize(
    ("status", "left"),
    [("completed", False), ("failed", False), ("expired", False), ("cancelled", False), ("in_progress", True),
     ("finalizing", True)],
)  # fmt: skip
def test_parts_of_batches_that_have_ended_are_deleted(
    store: TimedStore, storage: Storage, status: str, left: bool
) -> None:
    leases = LeaseKeeper(store)
    batch_id = _batch(store, storage, status)
    storage.write(part_path("batch_unknown", "p"), [b"x"])
    SweepDuty(BatchRecords(store), storage, leases).run()
    leases.close()
    assert sorted(storage.names("batches")) == sorted(["batch_unknown", *([batch_id] if left else [])])
    assert not store.client.exists(keys.lease(LEASE + batch_id))


def test_parts_of_a_batch_that_another_dispatcher_holds_are_deleted_when_it_has_let_go(
    store: TimedStore, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = LeaseKeeper(store)
    batch_id = _batch(store, storage, "completed")
    assert hold(store, LEASE + batch_id, "another")
    monkeypatch.setattr(sweep, "AGAIN_SECONDS", 0.0)
    duty = SweepDuty(BatchRecords(store), storage, leases)
    duty.run()
    assert storage.names("batches") == [batch_id]
    let_go(store, LEASE + batch_id, "another")
    wait_until(lambda: duty.run() or not storage.names("batches"), 5, "the next round")
    leases.close()


def _batch(store: TimedStore, storage: Storage, status: str) -> str:
    FileRecords(store).put(FileRecord("in", "", "lines", "batch", 1), None)
    record = BatchRecord("batch_1", "", "/v1/embeddings", "in", "24h", "validating", 0.0)
    assert BatchRecords(store).create(record) == "created"
    store.client.hset(keys.batch(record.id), "status", status)
    storage.write(part_path(record.id, "p"), [b"x"])
    return record.id
