"""Clients of OpenAI's face that vanish at random moments: a second later nothing of theirs runs or waits."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.processes import wait_for_value, worker

WORDS = " ".join(["word"] * 500)
GONE_SECONDS = 1.0


def vanish(api: Api, rng: random.Random) -> None:
    """Send a call, read for a while, and go away without a word."""
    kind = rng.choice(["chat/completions", "completions", "responses"])
    asked = {"messages": [{"role": "user", "content": WORDS}]} if kind[1] == "h" else {"prompt": WORDS}
    asked = {"input": WORDS} if kind == "responses" else asked
    body = {"model": "echo", "stream": rng.random() < 0.5, "cache": False, **asked}
    if kind != "responses":
        body["max_tokens"] = 500
    with contextlib.suppress(OSError):
        connection = api.send("POST", f"/v1/{kind}", json.dumps(body).encode())
        until = time.monotonic() + rng.uniform(0, 3)
        connection.settimeout(0.1)
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1 << 16):
                    break
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def live(store: TimedStore) -> list[str]:
    """What runs, or waits to."""
    ids = [key.decode().removeprefix("rq:job:") for key in store.client.scan_iter("rq:job:*", count=1000)]
    return [job.id for job in store.get_many(ids) if job and not job.status.is_terminal]


@pytest.mark.parametrize("clients", [60])
def test_who_vanishes_leaves_nothing_running(
    server: EmbeddedServer, store: TimedStore, tmp_path: Path, clients: int
) -> None:
    rng = random.Random(5)
    with running(server, tmp_path, 2, max_queue_jobs=5000) as api, worker(server, slots=128, echo_tokens_per_second=5):
        threads = [threading.Thread(target=vanish, args=(api, random.Random(rng.random()))) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = time.monotonic()
        while live(store) and time.monotonic() - left < 20:
            time.sleep(0.05)
        took = time.monotonic() - left
        print(f"{clients} clients: nothing ran {took:.2f} s after the last had gone")
        # A request is counted out after its connection is given up.
        wait_for_value(api.open_requests, 0, 10, "the open requests")
    assert store.client.hget(store.keys.totals(), "cancelled")
    assert took < GONE_SECONDS + 1.0, "on a machine that is busy with other tests"
