"""Clients of the API that repeat what was not answered, under the same key."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import requests

from tests.chaos.facts import JobFact
from tests.chaos.rig import Rig
from tests.chaos.work import CHAT, Batch, Work, lines_of, text_of

PATIENCE_SECONDS = 300.0
"""Of a machine that has much else to do; nothing here takes more than a few seconds by itself."""


def call(rig: Rig, path: str, key: str, **options: Any) -> Any:
    """The first answer that is one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = requests.post(rig.url + path, headers={"Idempotency-Key": key}, timeout=60, **options)
            if answer.ok:
                return answer.json()
            assert answer.status_code == 503, answer.text
        except requests.RequestException:
            rig.note_crash("api")
        time.sleep(0.1)
    raise AssertionError(f"{path} was never answered")


class Calls(Work):
    """Jobs, each submitted twice.

    Args:
        at_once: jobs in a request.
    """

    def __init__(self, count: int = 8, at_once: int = 1) -> None:
        self._count, self._at_once = count, at_once
        self._ids: dict[int, list[str]] = defaultdict(list)

    def begin(self, rig: Rig) -> None:
        for first in range(0, self._count, self._at_once):
            for _ in range(2):
                self._submit(rig, range(first, first + self._at_once))

    def _submit(self, rig: Rig, numbers: range) -> None:
        bodies = [{"prompt": text_of(each, 2), "cache": False} for each in numbers]
        if len(bodies) == 1:
            jobs = [call(rig, "/v1/jobs", f"key-{numbers[0]}", json=bodies[0])]
        else:
            answer = call(rig, "/v1/jobs:batch", f"key-{numbers[0]}", json={"jobs": bodies})
            jobs = [item["job"] for item in answer["items"]]
        for number, job in zip(numbers, jobs, strict=True):
            self._ids[number].append(job["id"])

    def is_done(self, rig: Rig) -> bool:
        ids = [one for each in self._ids.values() for one in each]
        return all(job is None or job.status.is_terminal for job in rig.store.get_many(ids))

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        jobs = [
            JobFact.of(f"job {number}", ids, rig.store.get_many(ids[-1:])[0], expected=text_of(number, 2))
            for number, ids in self._ids.items()
        ]
        return {"jobs": jobs, "submits": len(jobs)}


class UploadedBatch(Batch):
    """Two batches whose files are uploaded by the API, until that answers; the second is looked at."""

    def begin(self, rig: Rig) -> None:
        for key, lines in (("first", 1), ("second", self.lines)):
            data = b"".join(lines_of(lines))
            file = call(rig, "/v1/files", key, files={"file": ("lines", data)}, data={"purpose": "batch"})
            body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
            self.id = call(rig, "/v1/batches", key, json=body)["id"]
