"""Endpoints, events and deliveries with a real API, real dispatchers, and receivers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.outbox import read
from tests.fakes import TimedStore, keys, new_job, success
from tests.integration.apis import Api, running
from tests.integration.batches import dispatcher
from tests.processes import wait_until

HANG = 0
"""In the place of a status: nothing is answered until the receiver is closed."""
PATIENCE = 60
"""Seconds: on a machine that has much else to do a process takes long to start."""
SENDS = {"webhook_allow_private": True, "webhook_timeout_seconds": 1, "lease_seconds": 1}


class Receiver(ThreadingHTTPServer):
    """Answers with these statuses, the last one for ever.

    Attributes:
        came: headers and body of each request.
    """

    daemon_threads = True

    def __init__(self, statuses: list[int], location: str) -> None:
        self.statuses, self.location = statuses, location
        self.came: list[tuple[dict[str, str], str]] = []
        self.closed = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.came]

    def events(self, secret: str) -> list[Any]:
        """What came, as OpenAI's client checks and reads it."""
        client = openai.OpenAI(api_key="x", webhook_secret=secret)
        return [client.webhooks.unwrap(body, headers) for headers, body in self.came]


class Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.server.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
        if status == HANG:
            self.server.closed.wait(30)
            return
        self.send_response(status)
        self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def receiving(*statuses: int, location: str = "/") -> Iterator[Receiver]:
    receiver = Receiver(list(statuses), location)
    try:
        yield receiver
    finally:
        receiver.closed.set()
        receiver.shutdown()
        receiver.server_close()


Ends = Callable[..., None]


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1, webhook_allow_private=True) as api:
        yield api


@pytest.fixture
def end(store: TimedStore) -> Ends:
    """Ends a job."""

    def end(job_id: str, **fields: Any) -> None:
        store.submit(replace(new_job(job_id, job_id=job_id, cache=False), **fields))
        store.finish("w", [success(claim) for claim in store.claim("w", 1)])

    return end


def create(api: Api, receiver: Receiver, *events: str) -> dict[str, Any]:
    body = {"url": receiver.url} | ({"events": list(events)} if events else {})
    return dict(api.call("POST", "/v1/webhook_endpoints", json=body).json())


def deliveries(api: Api, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    return list(api.call("GET", f"/v1/webhook_endpoints/{endpoint['id']}/deliveries").json()["data"])


def tried(api: Api, endpoint: dict[str, Any], times: int = 1) -> dict[str, Any]:
    """Its only delivery, once it was tried so often."""

    def look() -> dict[str, Any] | None:
        return next((one for one in deliveries(api, endpoint) if one["tries"] >= times), None)

    return dict(wait_until(look, PATIENCE, "a try"))


def hasten(store: TimedStore, endpoint: dict[str, Any]) -> None:
    """Let the time of its next tries come."""
    due = keys.deliveries_due(endpoint["id"])
    members: list[Any] = store.client.zrange(due, 0, -1)
    store.client.zadd(due, dict.fromkeys(members, 1))


def test_ends_are_told_signed_once_to_those_who_chose_them(
    server: EmbeddedServer, store: TimedStore, api: Api, end: Ends
) -> None:
    with receiving(204) as all_, receiving(200) as chosen, dispatcher(server, api.data_dir, **SENDS):
        told, other = create(api, all_), create(api, chosen, "response.incomplete", "batch.completed")
        end("plain")
        end("asked", response="{}")
        api.call("POST", f"/v1/webhook_endpoints/{told['id']}/test")
        wait_until(lambda: len(all_.came) == 3, PATIENCE, "the events")
        found = {(event.type, event.data.id) for event in all_.events(told["secret"])}
        assert found == {
            ("job.succeeded", "plain"), ("response.completed", "resp_asked"), ("endpoint.test", told["id"])
        }  # fmt: skip
        wait_until(lambda: all(one["status"] == "delivered" for one in deliveries(api, told)), PATIENCE, "the notes")
        assert deliveries(api, other) == []
        assert read(store, 1) == []
        assert store.client.exists(keys.webhooks_active()) == 0
        rotated = api.call("POST", f"/v1/webhook_endpoints/{told['id']}/rotate").json()
        end("later")
        wait_until(lambda: len(all_.came) == 4, PATIENCE, "the event")
        assert len({event.id for event in all_.events(told["secret"])}) == 4
        del all_.came[:3]
        assert all_.events(rotated["secret"])[0].data.id == "later"


def test_a_jobs_own_webhook_is_told_signed_with_its_keys_secret_and_delays_nobody_elses(
    server: EmbeddedServer, store: TimedStore, api: Api
) -> None:
    with (
        receiving(204) as one, receiving(200) as other, receiving(410) as gone,
        dispatcher(server, api.data_dir, **SENDS),
    ):  # fmt: skip

        def submit(receiver: Receiver, path: str = "", **body: Any) -> str:
            hook = {"url": receiver.url + path, **body.pop("hook", {})}
            made = api.call("POST", "/v1/jobs", json={"prompt": "x", "cache": False, "webhook": hook} | body)
            assert made.status_code == 202, made.text
            return str(made.json()["id"])

        lost = submit(gone)
        told = [submit(one), submit(one, "?job=2"), submit(other, hook={"events": ["job.failed"]})]
        answered = {"model": "echo", "input": "x", "background": True, "webhook": {"url": other.url}}
        response = api.call("POST", "/v1/responses", json=answered).json()["id"]
        store.finish("w", [success(claim) for claim in store.claim("w", 10)])
        wait_until(lambda: len(one.came) == 2 and other.came and gone.came, PATIENCE, "the events")
        secret = api.call("GET", "/v1/webhook_secret").json()["secret"]
        assert {(event.type, event.data.id) for event in one.events(secret)} == {
            ("job.succeeded", job_id) for job_id in told[:2]
        }
        assert [(event.type, event.data.id) for event in other.events(secret)] == [("response.completed", response)]
        hosts = api.call("GET", "/v1/webhook_endpoints?of=jobs").json()["data"]
        assert sorted(host["url"] for host in hosts) == sorted(
            each.url.removesuffix("/hook") for each in (one, other, gone)
        )
        (host,) = (host for host in hosts if host["url"] == gone.url.removesuffix("/hook"))
        failed = tried(api, host)
        assert (failed["status"], failed["event"]["data"]["id"], failed["url"]) == ("failed", lost, gone.url)
        assert host["disabled_reason"] is None, "another job's webhook may be there all the same"


def test_failing_endpoints_are_tried_again_or_disabled_and_delay_nobody(
    server: EmbeddedServer, store: TimedStore, api: Api, end: Ends
) -> None:
    with (
        receiving(204) as good, receiving(500, 204) as failing, receiving(HANG) as hanging,
        receiving(410, 204) as gone, receiving(302) as redirecting, dispatcher(server, api.data_dir, **SENDS),
    ):  # fmt: skip
        redirecting.location = good.url
        named = {one: create(api, one) for one in (hanging, failing, gone, redirecting, good)}
        for number in range(8):
            end(f"job-{number}")
        wait_until(lambda: len(good.came) == 8, PATIENCE, "the good one's events")
        assert len(hanging.came) <= 4, "it holds up itself alone"
        assert tried(api, named[redirecting])["last_error"] == "HTTP 302"
        assert tried(api, named[hanging])["last_error"] == "No response within 1 s."
        assert len(set(good.ids)) == 8, "nothing came by the redirect"

        wait_until(lambda: len(set(failing.ids)) == 8, PATIENCE, "the failing one's first tries")
        hasten(store, named[failing])
        wait_until(
            lambda: all(one["status"] == "delivered" for one in deliveries(api, named[failing])), PATIENCE, "the rest"
        )
        assert (len(failing.ids), len(set(failing.ids))) == (9, 8), "the one that failed came again under its id"

        path = f"/v1/webhook_endpoints/{named[gone]['id']}"
        reason = wait_until(lambda: api.call("GET", path).json()["disabled_reason"], PATIENCE, "the end of it")
        assert reason == "The receiver answered 410: it is gone."
        end("unheard")
        wait_until(lambda: len(good.came) == 9, PATIENCE, "the event")
        assert len(deliveries(api, named[gone])) == 8
        failed = next(one for one in deliveries(api, named[gone]) if one["status"] == "failed")
        again = api.call("POST", f"{path}/deliveries/{failed['id']}/redeliver").json()
        assert (again["status"], again["event"]["id"]) == ("pending", failed["event"]["id"])
        wait_until(lambda: gone.ids.count(failed["event"]["id"]) == 2, PATIENCE, "the event once more")
        assert api.call("GET", path).json()["disabled_reason"] is None


def test_a_killed_dispatcher_loses_no_event_and_nothing_goes_inside_unless_it_may(
    server: EmbeddedServer, store: TimedStore, api: Api, end: Ends
) -> None:
    with receiving(HANG, 204) as receiver:
        endpoint = create(api, receiver)
        with dispatcher(server, api.data_dir, lease_seconds=1):
            end("job")
            refused = tried(api, endpoint)
        assert refused["last_error"] == "The address is not allowed: an address that is not public."
        assert receiver.came == []
        hasten(store, endpoint)
        with dispatcher(server, api.data_dir, **SENDS | {"webhook_timeout_seconds": 30}) as killed:
            wait_until(lambda: receiver.came, PATIENCE, "the event")
            killed.kill()
        with dispatcher(server, api.data_dir, **SENDS):
            wait_until(lambda: len(receiver.came) == 2, PATIENCE, "the event once more")
            assert tried(api, endpoint, 2)["status"] == "delivered"
        assert set(receiver.ids) == {refused["event"]["id"]}
