"""The records of files and batches on a real server: fences, what must not happen twice, and lifetimes."""

from __future__ import annotations

from typing import Any

import pytest

from promptq.contract.batches import BatchRecord, Part, is_done
from promptq.contract.files import FileRecord
from promptq.queue.batches import LEASE, BatchRecords, Commit, LeaseLost, WrittenTwice
from promptq.queue.files import FileRecords
from promptq.queue.leases import hold, let_go
from tests.fakes import NOW, TimedStore

BATCH = "batch_1"


@pytest.fixture
def files(store: TimedStore) -> FileRecords:
    store.at = NOW
    return FileRecords(store)


@pytest.fixture
def batches(store: TimedStore, files: FileRecords) -> BatchRecords:
    """With one batch, in progress, held by `a`."""
    files.put(FileRecord("file-in", "ann", "in.jsonl", "batch", 10, lines=5), None)
    records = BatchRecords(store)
    new = BatchRecord(
        BATCH, "ann", "/v1/completions", "file-in", "1h", "validating", 0.0, output_file_id="file-out",
        error_file_id="file-err", keep_seconds=1000, weight=2.5,
    )  # fmt: skip
    assert [records.create(new), records.create(new)] == ["created", "known"]
    assert hold(store, LEASE + BATCH, "a")
    assert records.move(BATCH, "a", ["validating"], "in_progress", {"total": 5})
    assert records.get(BATCH).weight == 2.5
    return records


def commit(mark: str, lines: list[int], failed: int = 0, size: int = 7) -> Commit:
    return Commit(mark, [Part("output", f"{mark}.output", size, len(lines))], lines, len(lines) - failed, failed)


def test_a_lease_has_one_holder(store: TimedStore) -> None:
    assert hold(store, "x", "a")
    assert not hold(store, "x", "b")
    assert hold(store, "x", "a")
    let_go(store, "x", "b")
    assert not hold(store, "x", "b"), "it was not b's to give up"
    assert 0 < store.client.pttl(store.keys.lease("x")) <= 15_000


def test_what_is_committed_is_there_once(batches: BatchRecords, files: FileRecords, store: TimedStore) -> None:
    batches.commit(BATCH, "a", commit("m1", [1, 9]))
    batches.commit(BATCH, "a", commit("m1", [1, 9]))  # its answer was lost
    with pytest.raises(WrittenTwice):
        batches.commit(BATCH, "a", commit("m2", [2, 9]))
    batches.commit(BATCH, "a", commit("m3", [2]))
    done = batches.done(BATCH)
    assert [line for line in range(20) if is_done(done, line)] == [1, 2, 9]
    record = batches.get(BATCH)
    assert (record.completed, record.failed) == (3, 0)
    assert [part.name for part in batches.parts(BATCH)] == ["m1.output", "m3.output"]
    written = files.get("file-out")
    assert (written.size, written.owner, written.purpose, written.in_use) == (14, "ann", "batch_output", True)
    assert not files.drop(written), "it is being written"
    assert not files.drop(files.get("file-in")), "it is being read"


def test_who_does_not_hold_the_batch_writes_nothing(batches: BatchRecords, store: TimedStore) -> None:
    let_go(store, LEASE + BATCH, "a")
    while store.client.exists(store.keys.lease(LEASE + BATCH)):
        pass
    assert hold(store, LEASE + BATCH, "b")
    with pytest.raises(LeaseLost):
        batches.commit(BATCH, "a", commit("late", [1]))
    with pytest.raises(LeaseLost):
        batches.move(BATCH, "a", ["in_progress"], "finalizing")
    with pytest.raises(LeaseLost):
        batches.reopen(batches.get(BATCH), "a", [], [1])
    assert (batches.parts(BATCH), batches.done(BATCH)) == ([], b"")


def test_an_end_frees_the_input_and_gives_all_its_lifetime(
    batches: BatchRecords, files: FileRecords, store: TimedStore
) -> None:
    batches.commit(BATCH, "a", commit("m1", [1], failed=1))
    assert not batches.move(BATCH, "a", ["finalizing"], "completed", keep_seconds=1000)
    assert batches.move(BATCH, "a", ["in_progress"], "finalizing")
    assert batches.move(BATCH, "a", ["finalizing"], "completed", keep_seconds=1000)
    assert batches.move(BATCH, "a", ["finalizing"], "completed", keep_seconds=1000), "the answer was lost"
    assert batches.live() == []
    assert files.get("file-in").uses == 0
    assert files.get("file-out").expires_at == NOW + 1000
    assert 0 < store.client.ttl(store.keys.batch(BATCH)) <= 1000
    assert not store.client.exists(store.keys.batch_parts(BATCH))
    store.at = NOW + 999
    assert files.expired() == []
    store.at = NOW + 1001
    assert [record.id for record in files.expired()] == ["file-out"]
    assert files.drop(files.get("file-out"))
    assert [record.id for record in files.of("ann")] == ["file-in"]


def test_a_retry_opens_it_again(batches: BatchRecords, files: FileRecords, store: TimedStore) -> None:
    assert batches.retry(batches.get(BATCH), "*") == "refused"
    batches.commit(BATCH, "a", commit("m1", [1, 2], failed=1))
    assert batches.move(BATCH, "a", ["in_progress"], "finalizing")
    assert batches.move(BATCH, "a", ["finalizing"], "completed", keep_seconds=1000)
    assert batches.retry(batches.get(BATCH), "*") == "done"
    record = batches.get(BATCH)
    assert (record.status, record.redrive, record.expires_at) == ("in_progress", "*", NOW + 3600)
    assert batches.live() == [BATCH]
    batches.reopen(record, "a", [Part("output", "kept", 3, 1)], [2])
    batches.reopen(record, "a", [Part("output", "kept", 3, 1)], [2])
    record = batches.get(BATCH)
    assert (record.round, record.failed, record.completed, record.redrive) == (1, 0, 1, "")
    assert is_done(batches.done(BATCH), 1)
    assert not is_done(batches.done(BATCH), 2)
    assert files.get("file-out").size == 3
    assert store.client.ttl(store.keys.batch(BATCH)) == -1


def test_a_cancel_is_asked_for_once(batches: BatchRecords) -> None:
    assert [batches.cancel(BATCH), batches.cancel(BATCH), batches.cancel("none")] == ["done", "done", "missing"]
    assert batches.get(BATCH).closing == "cancelled"
    assert batches.move(BATCH, "a", ["cancelling"], "cancelled", keep_seconds=5)
    assert batches.cancel(BATCH) == "cancelled"


def test_an_owners_batches_lose_those_that_are_gone(batches: BatchRecords, store: TimedStore) -> None:
    record = batches.get(BATCH)
    store.client.delete(store.keys.batch(BATCH))
    assert list(batches.of("ann")) == []
    batches.create(BatchRecord("batch_2", *_rest(record)))
    assert store.client.zrange(store.keys.batches("ann"), 0, -1) == [b"batch_2"]


def _rest(record: BatchRecord) -> list[Any]:
    return [getattr(record, name) for name in BatchRecord.__slots__[1:]]
