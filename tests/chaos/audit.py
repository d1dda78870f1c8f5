"""Holds Redis and the API against what the clients were promised. Every finding is one line."""

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

from promptq.contract.job import Result
from promptq.contract.queues import PRIORITIES
from scaler.housekeeping import SWEEP_SECONDS
from tests.chaos.clients import TERMINAL, Record
from tests.chaos.stack import Stack
from tests.fakes import keys

WINDOW_SECONDS = 2.0
"""With appendfsync everysec: what was acknowledged this long before a kill of Redis may be gone."""
PUT_BACK_SECONDS = SWEEP_SECONDS + 20
"""Within so many after keys were taken each job is in its place again; the scaler may be away meanwhile."""
LIVE = {b"queued", b"started", b"deferred"}
TIMELESS = {key.start for key in (keys.queue_names, keys.totals, keys.workers, keys.format)}
TIMELESS_PREFIXES = tuple(
    key.start for key in (keys.finished, keys.failed, keys.canceled, keys.workers_of, keys.model_totals)
)

CENSUS = """
local jobs, places = {}, {}
local function put(id, place) places[#places + 1] = id; places[#places + 1] = place end
for _, key in ipairs(redis.call('KEYS', 'rq:job:*')) do
  jobs[#jobs + 1] = string.sub(key, 8); jobs[#jobs + 1] = redis.call('HGET', key, 'status') or ''
end
for _, queue in ipairs({'high', 'default', 'low'}) do
  for _, id in ipairs(redis.call('LRANGE', 'rq:queue:' .. queue, 0, -1)) do put(id, 'queued') end
  for _, id in ipairs(redis.call('ZRANGE', 'rq:wip:' .. queue, 0, -1)) do put(string.match(id, '^(.*):'), 'started') end
  for _, place in ipairs({'deferred', 'finished', 'failed', 'canceled'}) do
    for _, id in ipairs(redis.call('ZRANGE', 'rq:' .. place .. ':' .. queue, 0, -1)) do put(id, place) end
  end
end
return {jobs, places}
"""


def census(client: redis.Redis) -> list[str]:
    """One atomic look: each job in exactly one place, and in the one that its status says."""
    jobs, places = client.eval(CENSUS, 0)
    status = dict(zip(jobs[::2], jobs[1::2], strict=True))
    found: dict[bytes, list[bytes]] = {}
    for job_id, place in zip(places[::2], places[1::2], strict=True):
        found.setdefault(job_id, []).append(place)
    return [
        f"{job_id.decode()} is {state.decode()} and in {[p.decode() for p in found.get(job_id, [])]}"
        for job_id, state in status.items()
        if found.get(job_id) != [state]
    ]


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

    def note(self, line: str) -> None:
        """A law is broken."""
        self.findings.append(line)

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
        for line in census(client):
            report.note(line)
        _leftovers(client, report)
        _totals(client, report, len(records))
        for record in records:
            _one(client, session, stack.url, record, report, texts_known)
    return report


def _one(
    client: redis.Redis, session: requests.Session, url: str, record: Record, report: Audit, texts_known: bool
) -> None:
    if not record.ids:
        return
    if len(set(record.ids)) > 1 and not report.in_window(record.acknowledged_at):
        report.note(f"job {record.spec.number} was made more than once: {record.ids}")
    answer = session.get(f"{url}/v1/jobs/{record.ids[-1]}", timeout=15)
    if answer.status_code == 404 and report.in_window(record.acknowledged_at):
        report.lost_in_window += 1
        return
    if answer.status_code != 200:
        report.note(f"job {record.spec.number} {record.ids[-1]}: {answer.status_code} {answer.text[:100]}")
        return
    job = answer.json()
    report.ends[(job["error"] or {}).get("type") or job["status"]] += 1
    report.attempts += job["attempts"]
    _check_end(job, record, report)
    _check_reading(record, report)
    _check_text(client, job, record, report, texts_known)


def _check_end(job: dict[str, Any], record: Record, report: Audit) -> None:
    name = f"job {record.spec.number} {job['id']}"
    if job["status"] not in TERMINAL:
        report.note(f"{name} is stuck: {job['status']}")
    if job["error"] and job["error"]["type"] not in ("worker_lost", "expired"):
        report.note(f"{name} failed: {job['error']}")
    if record.seen and json.loads(record.seen) != job:
        if report.in_window(record.seen_at) or report.in_window(_finished(record)):
            report.redone_in_window += 1
        else:
            report.note(f"{name} has changed after its end: {record.seen} → {json.dumps(job)}")


def _check_reading(record: Record, report: Audit) -> None:
    """A text that was read as it came: no gap, no repeat, and whole."""
    if (reading := record.reading) is None:
        return
    report.readings["whole"] += reading.job is not None
    report.readings["taken up again"] += max(0, reading.connections - 1)
    report.readings["resets"] += reading.resets
    for line in reading.findings():
        report.note(f"job {record.spec.number} {reading.job_id}, read as it came: {line}")


def _finished(record: Record) -> float:
    from promptq.contract.job import from_iso

    return from_iso(json.loads(record.seen)["finished_at"]) or 0.0


def _check_text(client: redis.Redis, job: dict[str, Any], record: Record, report: Audit, known: bool) -> None:
    """One result, from the last worker that claimed the job: nothing from one that was fenced off."""
    name = f"job {record.spec.number} {job['id']}"
    entries: Any = client.xrange(keys.results(job["id"]))
    if len(entries) != 1:
        report.note(f"{name} has {len(entries)} results")
        return
    fields = entries[0][1]
    ran = job["cache"] in ("miss", "bypass")
    holder = client.hget(keys.job(job["id"]), "worker_name")
    if ran and job["status"] == "succeeded" and fields[b"worker_name"] != holder:
        report.note(f"{name} was ended by {fields[b'worker_name']!r}, and last claimed by {holder!r}")
    if b"return_value" not in fields or not known:
        return
    text, expected = Result.decode(fields[b"return_value"]).text, record.spec.expected()
    if text != expected and not (job["status"] == "cancelled" and expected.startswith(text)):
        report.note(f"{name} has another text: {text!r}, not {expected!r}")


def _leftovers(client: redis.Redis, report: Audit) -> None:
    for queue in PRIORITIES:
        for kind in (keys.wip, keys.deferred, keys.queue):
            if client.exists(kind(queue)):
                report.note(f"{kind(queue)} is left")
    for name in client.scan_iter(count=1000):
        text = name.decode()
        if client.ttl(name) == -1 and text not in TIMELESS and not text.startswith(TIMELESS_PREFIXES):
            report.note(f"{text} has no lifetime")


def _totals(client: redis.Redis, report: Audit, jobs: int) -> None:
    totals = {name.decode(): int(value) for name, value in client.hgetall(keys.totals()).items()}
    report.counts = totals
    ended = sum(totals.get(state, 0) for state in ("succeeded", "failed", "cancelled", "expired"))
    if totals.get("submitted", 0) != ended:
        report.note(f"{totals.get('submitted', 0)} submitted, but {ended} ended: {totals}")
    hashes = sum(1 for _ in client.scan_iter(match=keys.job("*"), count=1000))
    if hashes > jobs:
        report.note(f"{hashes} jobs for {jobs} submits")
