"""Celery's side, run by an interpreter that has celery and celery-batches: `celery_peer.py URL SIZE fill JOBS|work`."""

import sys
from typing import Any

from celery import Celery
from celery_batches import Batches

URL, SIZE, WHAT, *REST = sys.argv[1:]
app = Celery("peer", broker=URL, backend=URL)
app.conf.update(
    task_serializer="json", result_expires=3600, worker_prefetch_multiplier=4, worker_hijack_root_logger=False,
    task_acks_late=True, broker_connection_retry_on_startup=True,
)  # fmt: skip


@app.task(base=Batches, flush_every=int(SIZE), flush_interval=0.05, name="nothing")
def nothing(requests: list[Any]) -> None:
    """The prompts come back, each as the result of its own task, and are counted for the benchmark."""
    for request in requests:
        result = {"text": request.kwargs["prompt"], "finish_reason": "stop"}
        app.backend.mark_as_done(request.id, result, request=request)
    app.backend.client.incrby("peer:done", len(requests))


if WHAT == "fill":
    with app.producer_or_acquire() as producer:
        for number in range(int(REST[0])):
            nothing.apply_async(kwargs={"prompt": "x" * 280 + f" {number}"}, producer=producer)
else:
    # No prefetch limit under the batch size, else a batch would wait for its interval.
    app.worker_main(
        ["worker", "--pool=solo", "--loglevel=CRITICAL", f"--prefetch-multiplier={4 * int(SIZE)}", "--without-gossip",
         "--without-mingle", "--without-heartbeat"]
    )  # fmt: skip
