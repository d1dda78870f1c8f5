"""The API's processes and the workers are replaced under load, and no client notices; changed keys hold afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import requests

from api.api_keys import digest
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.scalers import scaler
from tests.processes import wait_for_value, wait_until

PATIENCE = 60
"""Seconds in which a request is answered: those that come while new processes load wait for them."""


def hammer(api: Api, headers: dict[str, str], closing: threading.Event, seen: Counter[str]) -> None:
    """New connections, kept ones and long polls, until told to stop."""
    with requests.Session() as session:
        while not closing.is_set():
            try:
                url = f"http://127.0.0.1:{api.port}"
                job = session.post(
                    f"{url}/v1/jobs", json={"prompt": "x", "cache": False}, headers=headers, timeout=PATIENCE
                )
                seen[f"submit {job.status_code}"] += 1
                seen[
                    f"poll {api.call('GET', job.json()['urls']['self'] + '?wait=0.2', headers=headers).status_code}"
                ] += 1
            except requests.RequestException as error:
                seen[repr(error)] += 1


def test_sighup_replaces_the_processes_without_a_failed_request(server: EmbeddedServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {digest('a')}\n")
    ann, bob = ({"Authorization": f"Bearer {key}"} for key in "ab")
    settings = {"api_keys_file": keys, "key_requests_per_second": 0}
    with running(server, tmp_path / "api", **settings) as api:
        assert api.call("GET", "/v1/queues", headers=bob).status_code == 401
        closing, seen = threading.Event(), Counter[str]()
        clients = [threading.Thread(target=hammer, args=(api, ann, closing, seen)) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(2):
            asked = sum(seen.values())
            wait_until(lambda asked=asked: sum(seen.values()) > asked + 50, 20, "load")
            keys.write_text(f"ann {digest('a')}\nbob {digest('b')}\n")
            old = psutil.Process(api.process.pid).children()
            api.process.send_signal(signal.SIGHUP)
            assert psutil.wait_procs(old, timeout=30)[1] == []
            wait_until(lambda: psutil.Process(api.process.pid).children(), 20, "new processes")
        closing.set()
        for client in clients:
            client.join()
        print(seen)
        assert set(seen) == {"submit 202", "poll 200"}
        wait_until(lambda: api.call("GET", "/v1/queues", headers=bob).status_code == 200, 20, "bob's key")


def work(api: Api, closing: threading.Event, seen: Counter[str], attempts: Counter[int]) -> None:
    """Jobs from submit to end, one after the other: new connections, kept ones and long polls."""
    with requests.Session() as session:
        while not closing.is_set():
            try:
                url = f"http://127.0.0.1:{api.port}"
                body = {"prompt": "one two three four five six", "cache": False}
                made = session.post(f"{url}/v1/jobs", json=body, timeout=PATIENCE)
                seen[f"submit {made.status_code}"] += 1
                job = made.json()
                while job["status"] in ("queued", "running"):
                    answer = api.call("GET", f"{job['urls']['self']}?wait=5")
                    seen[f"poll {answer.status_code}"] += 1
                    job = answer.json()
                seen[job["status"]] += 1
                attempts[job["attempts"]] += 1
            except Exception as error:
                seen[repr(error)] += 1


def replace_workers(observer: Observer) -> None:
    """SIGTERM to each worker, one after the other, each once the one before has a successor."""
    for old in observer.workers():
        before = {worker.name for worker in observer.workers()}
        os.kill(old.pid, signal.SIGTERM)
        wait_until(
            lambda old=old, before=before: (
                old.name not in (now := {worker.name for worker in observer.workers()})
                and len(now) == len(before)
                and now - before
            ),
            30,
            f"the successor of {old.name}",
        )


def test_api_and_workers_are_replaced_without_a_failed_request_or_a_lost_attempt(
    server: EmbeddedServer, store: TimedStore, tmp_path: Path
) -> None:
    observer = Observer(store.client, store.settings)
    settings = {"min_workers": 2, "max_workers": 2, "lease_seconds": 15, "drain_seconds": 10}
    with scaler(server, **settings) as running_scaler, running(server, tmp_path / "api") as api:
        names = running_scaler.has(2)
        closing, seen, attempts = threading.Event(), Counter[str](), Counter[int]()
        clients = [threading.Thread(target=work, args=(api, closing, seen, attempts)) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(2):
            api.process.send_signal(signal.SIGHUP)
            time.sleep(1)
            replace_workers(observer)
        assert not names & running_scaler.workers()
        closing.set()
        for client in clients:
            client.join()
        print(dict(seen), dict(attempts))
        assert set(seen) == {"submit 202", "poll 200", "succeeded"}
        assert set(attempts) == {1}
        assert attempts[1] == seen["submit 202"] >= 40
        wait_for_value(lambda: sum(running_scaler.exits().values()), 4, 10, "the ends")
        # Retired is one that the scaler has seen drain: it cannot tell who had asked it to. It has asked nobody.
        assert running_scaler.exits().keys() <= {"exited", "retired"}
        assert sum(count for (action, _), count in running_scaler.decisions().items() if action == "down") == 0
