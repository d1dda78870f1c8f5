"""A dispatcher's rounds on a real server, which goes away in the middle of one: no line is lost or runs twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.batches.context import Context
from dispatcher.batches.models import Models
from dispatcher.batches.run import BatchRun
from dispatcher.batches.submitter import Submitter
from promptq.contract.batches import BatchRecord
from promptq.contract.errors import RedisUnavailable
from promptq.contract.files import FileRecord, path_of
from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.settings import DispatcherSettings
from promptq.queue.batches import LEASE, BatchRecords
from promptq.queue.files import FileRecords
from promptq.queue.leases import hold
from promptq.storage.storage import Storage
from tests.fakes import TimedStore, success

LINES = 250
BATCH = "batch_1"


@pytest.fixture
def run(client: Any, tmp_path: Path) -> Iterator[BatchRun]:
    """A batch that is held, and has submitted nothing yet."""
    settings = DispatcherSettings(_env_file=None, engine="echo")
    store = TimedStore(client, settings)
    storage = Storage(f"file://{tmp_path}")
    body = {"model": "echo", "prompt": "x"}
    lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body} for n in range(LINES)]
    storage.write(path_of("file-in"), [json.dumps(line).encode() + b"\n" for line in lines])
    files, batches = FileRecords(store), BatchRecords(store)
    files.put(FileRecord("file-in", "", "in", "batch", 1, lines=LINES), None)
    new = BatchRecord(
        BATCH, "", "/v1/completions", "file-in", "1h", "validating", 0.0, output_file_id="o", error_file_id="e"
    )
    batches.create(new)
    hold(store, LEASE + BATCH, "token")
    batches.move(BATCH, "token", ["validating"], "in_progress", {"total": LINES})
    metrics = DispatcherMetrics(CollectorRegistry())
    context = Context(settings, store, batches, files, storage, Models(store), metrics, now=store.now())
    with ThreadPoolExecutor(1) as executor:
        yield BatchRun(context, batches.get(BATCH), "token", executor)


def queued(store: TimedStore) -> list[str]:
    return [job_id.decode() for job_id in store.client.lrange(store.keys.queue("low"), 0, -1)]


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_what_was_not_admitted_is_next_again(run: BatchRun, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = run._context.store
    store.client.set(store.keys.drain_rate("echo"), "1000")  # there is room for all
    admit, calls = store.submit_many, iter(range(100))

    def submit(news: Any) -> Any:
        done = admit(news)
        if next(calls) == fails_at:
            raise RedisUnavailable("the answer was lost")
        return done

    monkeypatch.setattr(store, "submit_many", submit)
    with pytest.raises(RedisUnavailable):
        Submitter(run._context).submit([run])
    Submitter(run._context).submit([run])
    assert queued(store) == [f"{BATCH}-0-{number}-0" for number in range(1, LINES + 1)]
    assert len(run.in_flight) == LINES


def test_no_more_is_queued_than_there_is_room_for(run: BatchRun) -> None:
    store: Any = run._context.store
    for _ in range(3):
        Submitter(run._context).submit([run])
    assert len(queued(store)) == len(run.in_flight) == 128


@pytest.mark.parametrize(("temperature", "left"), [(0, 2), (1, 0)])
def test_what_is_written_is_forgotten_unless_the_cache_may_answer_with_it(
    run: BatchRun, temperature: float, left: int
) -> None:
    store: Any = run._context.store
    bodies = [{"model": "echo", "prompt": f"x{number}", "temperature": temperature} for number in range(2)]
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    run._context.storage.write(path_of("file-in"), [json.dumps(line).encode() + b"\n" for line in lines])
    Submitter(run._context).submit([run])
    claims = store.claim("w", 2)
    store.finish("w", [success(claim) for claim in claims])
    ids = [claim.id for claim in claims]
    run.note_ended(ids)
    run.flush()
    assert len([job for job in store.get_many(ids) if job]) == left
    assert all(store.client.ttl(store.keys.job(job_id)) in (-2, *range(290, 301)) for job_id in ids)


def test_an_end_whose_text_cannot_be_read_now_is_read_later(run: BatchRun, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = run._context.store
    Submitter(run._context).submit([run])
    claims = store.claim("w", 3)
    assert store.finish("w", [success(claim) for claim in claims]) == [True] * 3
    ids = [claim.id for claim in claims]
    with monkeypatch.context() as patch:
        patch.setattr(store, "get_many", lambda _ids: (_ for _ in ()).throw(RedisUnavailable("away")))
        with pytest.raises(RedisUnavailable):
            run.note_ended(ids)
    assert set(ids) <= set(run.in_flight.ids)
    run.note_ended(ids)
    run.flush()
    record = run._context.batches.get(BATCH)
    assert (record.completed, record.failed) == (3, 0)
    assert store.get_many(ids) == [None] * 3
