"""What the scenarios have the service do, and the facts of it: jobs, readers of their texts, batches."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from promptq.contract.batch_lines import LineCheck
from promptq.contract.batches import BatchRecord
from promptq.contract.files import FileRecord, path_of
from promptq.contract.request import JobRequest
from promptq.openai.calls import ENDPOINTS
from promptq.queue.batches import BatchRecords
from promptq.queue.files import FileRecords
from promptq.queue.progress import Place, follow
from promptq.queue.store import NewJob
from promptq.storage.storage import ObjectMissing
from tests.chaos.facts import BatchFact, JobFact
from tests.chaos.rig import Rig

WORDS = 40
CHAT = "/v1/chat/completions"


def text_of(number: int, words: int = WORDS) -> str:
    """The prompt of a job, and what an echo answers."""
    return " ".join(f"job{number}word{place}" for place in range(words))


class Work(ABC):
    """One kind of it."""

    @abstractmethod
    def begin(self, rig: Rig) -> None:
        """Ask for it."""

    @abstractmethod
    def is_done(self, rig: Rig) -> bool:
        """Whether all of it has ended."""

    @abstractmethod
    def facts(self, rig: Rig) -> Mapping[str, Any]:
        """Of `Facts`, what it knows."""

    def close(self) -> None:
        """Nothing is to go on any more."""
        return


class Jobs(Work):
    """Jobs by the store, which several workers' failpoints are between."""

    def __init__(self, count: int = 3, words: int = WORDS, **fields: Any) -> None:
        self._count, self._words, self._fields = count, words, fields
        self.ids: list[str] = []
        self._numbers: list[int] = []

    def begin(self, rig: Rig) -> None:
        for number in range(self._count):
            self.add(rig, number, **self._fields)

    def add(self, rig: Rig, number: int, **fields: Any) -> str:
        """Submit one."""
        request = JobRequest(prompt=text_of(number, self._words), max_tokens=self._words, cache=False, **fields)
        self._numbers.append(number)
        self.ids.append(rig.store.submit(NewJob.create(request, "echo", "echo")).job.id)
        return self.ids[-1]

    def is_done(self, rig: Rig) -> bool:
        return all(job is None or job.status.is_terminal for job in rig.store.get_many(self.ids))

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        found = rig.store.get_many(self.ids)
        jobs = [
            JobFact.of(f"job {number}", [job_id], job, expected=text_of(number, self._words))
            for number, job_id, job in zip(self._numbers, self.ids, found, strict=True)
        ]
        return {"jobs": jobs, "submits": len(jobs)}


class ReadJobs(Jobs):
    """Jobs whose texts somebody reads as they come, as the API does."""

    def __init__(self, count: int = 3, **fields: Any) -> None:
        super().__init__(count, **fields)
        self._closing = threading.Event()
        self._texts: dict[str, str] = defaultdict(str)
        self._reader: threading.Thread | None = None

    def begin(self, rig: Rig) -> None:
        super().begin(rig)
        self._reader = threading.Thread(target=self._read, args=(rig,), daemon=True)
        self._reader.start()

    def _read(self, rig: Rig) -> None:
        places = {job_id: Place(job_id) for job_id in self.ids}
        while not self._closing.wait(0.02):
            for job_id, found in zip(places, follow(rig.store, list(places.values()), watch=True), strict=True):
                if found.entries:
                    self._texts[job_id] += "".join(text for _, text in found.entries)
                    places[job_id] = Place(job_id, found.source, found.entries[-1][0])

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        self.close()
        known = super().facts(rig)
        # What comes with the end itself is read from the stored text.
        read = [
            replace(job, reading=[] if (job.text or "").startswith(text) else [f"read {text!r}"])
            for job in known["jobs"]
            if (text := self._texts[job.id])
        ]
        return {**known, "jobs": read}

    def close(self) -> None:
        self._closing.set()
        if self._reader:
            self._reader.join()


def lines_of(count: int) -> Iterator[bytes]:
    """The lines of a batch; the custom_id of each is its number."""
    for number in range(count):
        body = {"model": "echo", "messages": [{"role": "user", "content": text_of(number, 4)}], "max_tokens": 4}
        line = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}
        yield json.dumps(line).encode() + b"\n"


class Batch(Work):
    """A batch of lines, put into the storage as the API does."""

    def __init__(self, lines: int = 120) -> None:
        self.lines, self.id = lines, f"batch_{'0' * 32}"

    def begin(self, rig: Rig) -> None:
        data = b"".join(lines_of(self.lines))
        check = LineCheck(ENDPOINTS, 10**6)
        check.feed(data)
        check.end()
        file = FileRecord("file-1", "", "lines", "batch", len(data), lines=check.lines, first_lines=check.first_lines)
        rig.storage.write(path_of(file.id), [data])
        FileRecords(rig.store).put(replace(file, model=check.model), None)
        record = BatchRecord(
            self.id, "", CHAT, file.id, "24h", "validating", 0.0, output_file_id="file-out", error_file_id="file-err",
            model="echo",
        )  # fmt: skip
        assert BatchRecords(rig.store).create(record) == "created"

    def is_done(self, rig: Rig) -> bool:
        record = BatchRecords(rig.store).get(self.id)
        has_ended = record is not None and record.status == "completed"
        return has_ended and not rig.storage.names("batches")

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        record = BatchRecords(rig.store).get(self.id)
        assert record
        counts = {"total": record.total, "completed": record.completed, "failed": record.failed}
        output, errors = (self._entries(rig, record.file_id(kind)) for kind in ("output", "error"))
        wanted = [str(number) for number in range(self.lines)]
        fact = BatchFact(record.id, record.status, counts, output, errors, lambda one: text_of(int(one), 4), wanted)
        return {"batches": [fact], "storage": rig.storage}

    def _entries(self, rig: Rig, file_id: str) -> list[dict[str, Any]]:
        with suppress(ObjectMissing):
            return [json.loads(raw) for raw in rig.storage.lines(path_of(file_id))]
        return []


class ExpiredFile(Work):
    """A file whose time is over."""

    def begin(self, rig: Rig) -> None:
        record = FileRecord("file-1", "", "lines", "batch", 1)
        rig.storage.write(path_of(record.id), [b"x"])
        FileRecords(rig.store).put(record, 1)
        rig.wait(lambda: FileRecords(rig.store).expired(), 60)

    def is_done(self, rig: Rig) -> bool:
        return not FileRecords(rig.store).get("file-1")

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        return {"storage": rig.storage}
