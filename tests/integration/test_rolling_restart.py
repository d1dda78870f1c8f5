"""The API's processes are replaced under load, and no client notices; changed keys hold afterwards."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from pathlib import Path

import requests

from api.keys import digest
from promptq.embedded import EmbeddedServer
from tests.integration.test_api_server import Api, running
from tests.processes import wait_until


def hammer(api: Api, headers: dict[str, str], closing: threading.Event, seen: Counter[str]) -> None:
    """New connections, kept ones and long polls, until told to stop."""
    with requests.Session() as session:
        while not closing.is_set():
            try:
                url = f"http://127.0.0.1:{api.port}"
                job = session.post(f"{url}/v1/jobs", json={"prompt": "x", "cache": False}, headers=headers, timeout=10)
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
        closing, seen = threading.Event(), Counter()
        clients = [threading.Thread(target=hammer, args=(api, ann, closing, seen)) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(2):
            time.sleep(1)
            keys.write_text(f"ann {digest('a')}\nbob {digest('b')}\n")
            api.process.send_signal(signal.SIGHUP)
            time.sleep(3)
        closing.set()
        for client in clients:
            client.join()
        print(seen)
        assert set(seen) == {"submit 202", "poll 200"}
        wait_until(lambda: api.call("GET", "/v1/queues", headers=bob).status_code == 200, 20, "bob's key")
