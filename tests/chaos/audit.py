"""Holds Redis and the API against what the clients were promised: gathers the facts, and has the laws judge them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import redis
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from promptq.contract.job import from_iso
from promptq.queue.store import JobStore
from scaler.housekeeping import SWEEP_SECONDS
from tests.chaos.census import CENSUS, census
from tests.chaos.clients import Record
from tests.chaos.facts import Facts, JobFact
from tests.chaos.invariants import check
from tests.chaos.stack import Stack
from tests.fakes import SETTINGS, keys

WINDOW_SECONDS = 2.0
"""With appendfsync everysec: what was acknowledged this long before a kill of Redis may be gone."""
PUT_BACK_SECONDS = SWEEP_SECONDS + 20
"""Within so many after keys were taken each job is in its place again; the scaler may be away meanwhile."""
LIVE = {b"queued", b"started", b"deferred"}
ALLOWED = frozenset({"worker_lost", "expired"})
"""Errors with which a job may end: it lost too many workers, or waited for too long."""


class Inspector(threading.Thread):
    """Takes the census while everything is on fire."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.findings: list[str] = []
        self.taken = 0
        self._stack = stack
        self._closing = threading.Event()

    def run(self) -> None:
        """A census a second."""
        while not self._closing.wait(1):
            with contextlib.suppress(redis.RedisError), self._stack.client as client:
                found = [f"in flight: {line}" for line in census(client)]
                self.findings += [line for line in found if not self._is_being_put_back(line)]
                self.taken += 1

    def _is_being_put_back(self, line: str) -> bool:
        """Of a job in no place, whether keys were taken so lately that nobody can have looked for it yet."""
        return line.endswith("in []") and time.monotonic() < self._stack.evicted_at + PUT_BACK_SECONDS

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self.join()


@dataclass
class Audit:
    """What the end of a run shows."""

    kills: list[float]
    findings: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    readings: Counter[str] = field(default_factory=Counter)
    lost_in_window: int = 0
    redone_in_window: int = 0
    attempts: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def in_window(self, moment: float) -> bool:
        """Whether a kill of Redis may have taken what was acknowledged then."""
        return any(kill - WINDOW_SECONDS <= moment <= kill + 0.5 for kill in self.kills)


def wait_for_rest(client: redis.Redis, seconds: float) -> bool:
    """Whether nothing waits or runs any more, in time, in a list or in none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            jobs, _ = client.eval(CENSUS, 0)
            if not LIVE & set(jobs[1::2]):
                return True
        time.sleep(0.5)
    return False


def audit(stack: Stack, records: list[Record], kills: list[float], texts_known: bool = True) -> Audit:
    """Everything, on a stack that is at rest."""
    report = Audit(kills)
    with stack.client as client, requests.Session() as session:
        # An orphan of a killed gunicorn may still take a connection, and end.
        session.mount("http://", HTTPAdapter(max_retries=Retry(total=8, backoff_factor=0.1, status_forcelist=[503])))
        jobs = [_job(session, stack.url, record, texts_known) for record in records if record.ids]
        facts = Facts(
            JobStore(client, SETTINGS), jobs, submits=len(records), errors=ALLOWED, excuse=report.in_window
        )  # fmt: skip
        report.findings = [f"{law}: {line}" for law, lines in check(facts).items() for line in lines]
        report.counts = {name.decode(): int(value) for name, value in client.hgetall(keys.totals()).items()}
    for job, record in zip(jobs, filter(lambda record: record.ids, records), strict=True):
        _count(report, job, record)
    return report


def _job(session: requests.Session, url: str, record: Record, texts_known: bool) -> JobFact:
    """What the API says of a job now, and what its client knows."""
    expected = record.spec.expected() if texts_known else None
    seen = json.loads(record.seen) if record.seen else None
    name, reading = f"job {record.spec.number}", record.reading.findings() if record.reading else []
    known: dict[str, Any] = {"acknowledged_at": record.acknowledged_at, "seen_at": record.seen_at}
    known |= {"seen": seen, "finished_at": (from_iso(seen["finished_at"]) or 0.0) if seen else 0.0}
    answer = session.get(f"{url}/v1/jobs/{record.ids[-1]}", timeout=15)
    if answer.status_code == 404:
        return JobFact(name, record.ids, expected, reading=reading, **known)
    job = answer.json()
    return JobFact(
        name, record.ids, expected, job["status"], (job["error"] or {}).get("type", ""),
        (job["output"] or {}).get("text"), job["attempts"], job["cache"] in ("miss", "bypass"), now=job,
        reading=reading, **known,
    )  # fmt: skip


def _count(report: Audit, job: JobFact, record: Record) -> None:
    if not job.status:
        report.lost_in_window += report.in_window(job.acknowledged_at)
        return
    report.ends[job.error or job.status] += 1
    report.attempts += job.attempts
    report.redone_in_window += job.seen is not None and job.seen != job.now
    if reading := record.reading:
        report.readings["whole"] += reading.job is not None
        report.readings["taken up again"] += max(0, reading.connections - 1)
        report.readings["resets"] += reading.resets
