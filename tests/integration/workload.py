"""A whole deployment as real processes, and work that needs every one of its keys."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai

from api.api_keys import digest
from tests.integration.apis import Api, running
from tests.integration.batches import create, dispatcher, ended, line, write
from tests.integration.test_webhooks import receiving
from tests.processes import start, wait_until

PATIENCE = 120
"""Seconds: on a machine that has much else to do a process takes long to start."""
ROOM = 6
"""Jobs that may wait: so few that a burst finds none."""
SCALER = {"tick_seconds": 0.2, "scaler_port": 0, "spare_worker": False, "slots": 2, "echo_tokens_per_second": 20}


class Client:
    """One API key's side of the API."""

    def __init__(self, api: Api, key: str) -> None:
        self.api, self._key = api, key

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer's JSON; a refusal fails the test."""
        answer = self.ask(method, path, body, **headers)
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.api.call(method, path, json=body, headers={"Authorization": f"Bearer {self._key}", **headers})

    def status(self, job_id: str) -> str:
        return str(self("GET", f"/v1/jobs/{job_id}")["status"])

    def events(self, job_id: str) -> Any:
        """The open stream of a job's text."""
        headers = {"Authorization": f"Bearer {self._key}"}
        return self.api.call("GET", f"/v1/jobs/{job_id}/events", headers=headers, stream=True)

    def submit(self, words: str, wait: bool = True, key: str = "", **fields: Any) -> Any:
        headers = ({"Prefer": "wait=60"} if wait else {}) | ({"Idempotency-Key": key} if key else {})
        return self("POST", "/v1/jobs", {"prompt": words, **fields}, **headers)

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.api.port}/v1", api_key=self._key, max_retries=9)


@contextmanager
def deployed(url: str, folder: Path, with_dispatcher: bool = True, **settings: Any) -> Iterator[Api]:
    """An API for the keys `ann` and `bob`, a scaler with one worker, and a dispatcher, on the server of that URL."""
    folder.mkdir(exist_ok=True)
    (folder / "keys").write_text("".join(f"{name} {digest(name)}\n" for name in ("ann", "bob")))
    server: Any = SimpleNamespace(url=url)
    shared = {"lease_seconds": 2, "max_queue_jobs": ROOM, "data_dir": folder, "webhook_allow_private": True} | settings
    with ExitStack() as held:
        scaler = start("scaler", server, **shared, **SCALER)
        held.callback(lambda: (scaler.terminate(), scaler.wait(60)))
        if with_dispatcher:
            held.enter_context(dispatcher(server, **shared, batch_queue_share=1))
        api = held.enter_context(running(server, api_processes=1, api_keys_file=folder / "keys", **shared))
        wait_until(lambda: api.call("GET", "/readyz").ok, PATIENCE, "a worker")
        yield api


def use_everything(api: Api, folder: Path) -> None:
    """Ask for whatever there is, and see that it is done."""
    ann, bob = Client(api, "ann"), Client(api, "bob")
    with receiving(204) as receiver:
        endpoint = ann("POST", "/v1/webhook_endpoints", {"url": receiver.url})["id"]
        bob("POST", "/v1/webhook_secret/rotate")
        bob.submit("told of", webhook={"url": receiver.url})
        run_jobs(ann, bob)
        run_others(ann, folder)
        lose_a_worker(ann)
        wait_until(lambda: len(receiver.came) > 5, PATIENCE, "events")
        ann("POST", f"/v1/webhook_endpoints/{endpoint}/rotate")
        ann("GET", f"/v1/webhook_endpoints/{endpoint}/deliveries")
        ann("DELETE", f"/v1/webhook_endpoints/{endpoint}")
    for path in ("/v1/workers", "/v1/queues", "/v1/activity", "/v1/usage", "/v1/models", "/v1/jobs?status=failed"):
        assert ann("GET", path)
    assert api.call("GET", "/metrics").ok


def run_jobs(ann: Client, bob: Client) -> None:
    """Jobs that end well, are in the cache, join others, wait, find no room, are read as they come and cancelled."""
    assert ann.submit("a", key="k")["status"] == "succeeded"
    assert ann.submit("a")["cache"] == "hit"
    long, fields = "word " * 2000, {"max_tokens": 2000, "cache": False}
    jobs = [ann.submit(long, wait=False, **fields)["id"] for _ in range(2)]
    wait_until(lambda: ann.status(jobs[1]) == "running", PATIENCE, "full slots")
    jobs += [ann.submit(long, wait=False, max_tokens=2000, ttl_seconds=600)["id"] for _ in range(2)]
    others = [bob.ask("POST", "/v1/jobs", {"prompt": long, **fields}) for _ in range(ROOM + 1)]
    assert {answer.status_code for answer in others} == {202, 429}
    with ann.events(jobs[0]) as events:
        assert next(events.iter_content(None))
    for client, ids in ((ann, jobs), (bob, [answer.json()["id"] for answer in others if answer.ok])):
        for job_id in ids:
            client("POST", f"/v1/jobs/{job_id}/cancel")
    wait_until(lambda: ann.status(jobs[0]) == "cancelled", PATIENCE, "the end of what ran")


def run_others(ann: Client, folder: Path) -> None:
    """A response in the background, and a batch with its files."""
    with ann.sdk() as sdk:
        response = sdk.responses.create(model="echo", input="one two", background=True)
        wait_until(lambda: sdk.responses.retrieve(response.id).status == "completed", PATIENCE, "the response")
        sdk.responses.delete(response.id)
        batch = ended(sdk, create(sdk, write(folder, [line("a"), line("b", "four five")])).id, PATIENCE)
        assert batch.status == "completed"
        assert sdk.files.content(batch.output_file_id).read()
        sdk.files.delete(batch.output_file_id)


def lose_a_worker(ann: Client) -> None:
    """A worker dies with a job, which another one ends."""
    job_id = ann.submit("word " * 60, wait=False, cache=False)["id"]
    wait_until(lambda: ann.status(job_id) == "running", PATIENCE, "the job's start")
    (worker,) = ann("GET", "/v1/workers")["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: ann.status(job_id) == "succeeded", PATIENCE, "the job's end")
