"""Clients that never give up: each submits under an Idempotency-Key until it is acknowledged."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue

import requests
import urllib3

from tests.chaos.plan import Spec, flood
from tests.chaos.reading import Reading

PATIENCE_SECONDS = 0.5
GIVE_UP_SECONDS = 180.0
FLOOD_JOBS = 400
FLOOD_SECONDS = 20.0
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}


@dataclass
class Record:
    """What a client knows of its job."""

    spec: Spec
    ids: list[str] = field(default_factory=list)
    acknowledged_at: float = 0.0
    seen: str = ""
    seen_at: float = 0.0
    reading: Reading | None = None


class Crowd:
    """Threads that work through the specs of a plan."""

    def __init__(self, url: str, seed: int, specs: list[Spec], threads: int = 8) -> None:
        self.url = url
        self.seed = seed
        self.records: list[Record] = []
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._todo: SimpleQueue[Spec] = SimpleQueue()
        for spec in specs:
            self._todo.put(spec)
        self._watched: SimpleQueue[Record] = SimpleQueue()
        self._lock = threading.Lock()
        self._submitters = [threading.Thread(target=self._submit_all, daemon=True) for _ in range(threads)]
        self._watchers = [threading.Thread(target=self._watch_all, daemon=True) for _ in range(3 * threads)]
        self._submitted = threading.Event()
        self._floods = count(1)

    def start(self) -> None:
        """Begin."""
        for thread in (*self._submitters, *self._watchers):
            thread.start()

    def join(self) -> None:
        """Wait until everything was acknowledged and watched."""
        for thread in self._submitters:
            thread.join()
        self._submitted.set()
        for thread in self._watchers:
            thread.join()

    def alive(self) -> bool:
        """Whether anybody still submits."""
        return any(thread.is_alive() for thread in self._submitters)

    def flood(self) -> bool:
        """Submit as fast as possible until the queue is full. Whether it was; the last job then waits for room."""
        specs = flood(self.seed, next(self._floods) * 1_000_000, FLOOD_JOBS)
        deadline = time.monotonic() + FLOOD_SECONDS
        with requests.Session() as session:
            for spec in specs:
                refused = self.answers["429 in a flood"]
                record = self._record(spec)
                self._submit(session, record, "429 in a flood")
                if self.answers["429 in a flood"] > refused:
                    return True
                if time.monotonic() > deadline:
                    break
        return False

    def _submit_all(self) -> None:
        with requests.Session() as session:
            while True:
                try:
                    spec = self._todo.get_nowait()
                except Empty:
                    return
                self._one(session, spec)

    def _one(self, session: requests.Session, spec: Spec) -> None:
        record = self._record(spec)
        self._submit(session, record)
        if spec.repeat:
            self._submit(session, record)
        if spec.cancel and record.ids:
            self._call(session, "POST", f"/v1/jobs/{record.ids[-1]}/cancel", {200, 202, 404, 409})
        if spec.watch:
            self._watched.put(record)

    def _record(self, spec: Spec) -> Record:
        record = Record(spec)
        with self._lock:
            self.records.append(record)
        return record

    def _submit(self, session: requests.Session, record: Record, refusal: str = "429") -> None:
        headers = {"Idempotency-Key": f"{self.seed}-{record.spec.number}"}
        answer = self._call(session, "POST", "/v1/jobs", {200, 202}, refusal, json=record.spec.body, headers=headers)
        if answer is None:
            self.wrong.append(f"job {record.spec.number} was never acknowledged")
            return
        record.ids.append(answer.json()["id"])
        record.acknowledged_at = time.time()

    def _watch_all(self) -> None:
        with requests.Session() as session:
            while True:
                try:
                    record = self._watched.get(timeout=0.2)
                except Empty:
                    if self._submitted.is_set():
                        return
                    continue
                self._watch(session, record)

    def _watch(self, session: requests.Session, record: Record) -> None:
        if record.spec.number % 2 and record.ids:
            record.reading = Reading(record.ids[-1])
            self._read(session, record, record.reading)
        else:
            self._poll(session, record)

    def _read(self, session: requests.Session, record: Record, reading: Reading) -> None:
        """Read the text as it comes; a stream that breaks is taken up again where it broke."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                outcome = reading.follow(session, self.url)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                outcome = type(error).__name__
            self._note(f"stream {outcome}")
            if reading.job or outcome == "404":
                record.seen, record.seen_at = json.dumps(reading.job) if reading.job else "", time.time()
                return
            time.sleep(0.2)

    def _poll(self, session: requests.Session, record: Record) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while record.ids and time.monotonic() < deadline:
            answer = self._call(session, "GET", f"/v1/jobs/{record.ids[-1]}?wait=5", {200, 404})
            if answer is None or answer.status_code == 404:
                return
            if answer.json()["status"] in TERMINAL:
                record.seen, record.seen_at = answer.text, time.time()
                return

    def _call(
        self, session: requests.Session, method: str, path: str, wanted: set[int], refusal: str = "429",
        **options: object,
    ) -> requests.Response | None:  # fmt: skip
        """The first answer that is wanted; 429 (counted as `refusal`), 503 and broken connections are tried again."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = session.request(method, self.url + path, timeout=15, **options)
            except requests.RequestException as error:
                self._note(type(error).__name__)
                time.sleep(0.2)
                continue
            self._note(refusal if answer.status_code == 429 else str(answer.status_code))
            if answer.status_code in wanted:
                return answer
            if answer.status_code not in (429, 503):
                self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            time.sleep(PATIENCE_SECONDS)
        return None

    def _note(self, what: str) -> None:
        with self._lock:
            self.answers[what] += 1
