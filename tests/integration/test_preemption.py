"""Jobs of the real model that give way to an urgent one, and end with the text that they would have had."""

from __future__ import annotations

import time
from typing import Any

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.progress import Place, follow
from tests.fakes import TimedStore, submit
from tests.integration.test_resumed_text import PROMPTS, smollm
from tests.processes import wait_until, worker

__all__ = ["smollm"]
LOW: tuple[dict[str, Any], ...] = (
    {"prompt": PROMPTS[0], "max_tokens": 120},
    {"prompt": PROMPTS[1], "max_tokens": 120, "temperature": 0.8, "seed": 5},
)


def test_an_urgent_job_takes_a_slot_at_once_and_no_text_changes(
    server: EmbeddedServer, store: TimedStore, smollm: dict[str, Any]
) -> None:
    def run(**fields: Any) -> str:
        return submit(store, now=time.time(), cache=False, **fields).job.id

    def ended(ids: list[str]) -> list[str]:
        wait_until(lambda: all(job and job.status.is_terminal for job in store.get_many(ids)), 120)
        return [job.result.text for job in store.get_many(ids) if job and job.result]

    with worker(server, "w", slots=2, checkpoint_seconds=60, **smollm):
        wanted = ended([run(**fields) for fields in (*LOW, {"prompt": PROMPTS[2], "max_tokens": 5})])
        low = [run(priority="low", **fields) for fields in LOW]
        wait_until(lambda: all(follow(store, [Place(job_id) for job_id in low], watch=True)[n].entries for n in (0, 1)))
        urgent = run(priority="high", prompt=PROMPTS[2], max_tokens=5)
        assert ended([*low, urgent]) == wanted
    jobs = [job for job in store.get_many([*low, urgent]) if job and job.result]
    assert sorted(job.result.moves for job in jobs if job.result) == [0, 0, 1]
    assert {job.attempts for job in jobs} == {1}
    assert sum(job.result.resumed_tokens for job in jobs if job.result) > 0
    finished = [job.finished_at or 0 for job in jobs]
    assert finished[2] < min(finished[:2]), "the urgent one did not wait for a slot"
