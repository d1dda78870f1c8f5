"""A small API server: pods of one namespace as a real one keeps them, with watches, and faults on request.

kmock, a mock of Kubernetes, keeps no resource versions, selects by no label and deletes without a grace period, and
these are what a fleet of pods has to get right.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests import pod_statuses

NAMESPACE = "prompts"
OWNER = "promptq-scaler"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
OWNER_PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{OWNER}"
Pod = dict[str, Any]


class Refusal(Exception):
    """An answer in the server's own form, a Status."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "code": code,
        }  # fmt: skip


class FakeKubernetes:
    """The server, and the hand that plays its nodes.

    Attributes:
        on_create: the status that a new pod has, as if scheduler and kubelet were done at once.
        on_sigterm: called with the name of a pod that has been told to end within its grace period.
        faults: by method, the refusals of the next requests.
        asked: methods and paths, in their order.
    """

    def __init__(self) -> None:
        self.on_create: Callable[[], Any] = lambda: pod_statuses.PENDING
        self.on_sigterm: Callable[[str], None] = lambda name: None
        self.faults: dict[str, list[Refusal]] = {}
        self.asked: list[tuple[str, str]] = []
        self.lists = 0
        self.watches = 0
        self._pods: dict[str, Pod] = {}
        self._events: list[tuple[int, str, Pod]] = []
        self._versions = count(1000)
        self._version = 1000
        self._oldest = 0
        self._epoch = 0
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop, and end what watches."""
        self.cut_watches()
        self._server.shutdown()
        self._server.server_close()

    @property
    def pods(self) -> dict[str, Pod]:
        """The pods there are."""
        with self._changed:
            return copy.deepcopy(self._pods)

    def set(self, name: str, status: dict[str, Any], node: str = "node-1") -> None:
        """A pod's status changes; it is bound to a node with the first one that a kubelet writes."""
        with self._changed:
            pod = copy.deepcopy(self._pods[name])
            pod["status"] = status
            if any(one["type"] == "PodScheduled" and one["status"] == "True" for one in status["conditions"]):
                pod["spec"]["nodeName"] = node
            self._write("MODIFIED", pod)

    def finish(self, name: str, status: dict[str, Any]) -> None:
        """The kubelet tells how the containers ended, and that nothing is left of the pod."""
        self.set(name, status)
        self.remove(name)

    def remove(self, name: str) -> None:
        """The pod's object goes."""
        with self._changed:
            self._write("DELETED", copy.deepcopy(self._pods[name]))

    def fail(self, method: str, *refusals: Refusal) -> None:
        """Refuse the next requests of a method: POST, DELETE, GET, or WATCH."""
        self.faults.setdefault(method, []).extend(refusals)

    def cut_watches(self) -> None:
        """Every watch ends without a word, as when a proxy between goes."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    def still(self) -> threading.Condition:
        """While it is held nobody else sees what changes."""
        return self._changed

    def compact(self) -> None:
        """Forget what has happened: a watch from any earlier version is refused."""
        with self._changed:
            self._oldest = self._version
            self._events.clear()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """What the server says to a request that is no watch."""
        self.asked.append((method, path))
        self._fault(method)
        if path == OWNER_PATH and method == "GET":
            return {"metadata": {"name": OWNER, "namespace": NAMESPACE, "uid": "0c5e-owner"}}
        if method == "GET" and path == PODS:
            return self._list(query)
        if method == "POST" and path == PODS:
            return self._create(body)
        if method == "DELETE" and path.startswith(PODS + "/"):
            return self._delete(path.rpartition("/")[2], query)
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def watch(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Events after a version, until the watch is cut."""
        self._fault("WATCH")
        with self._changed:
            self.watches += 1
            seen = int(query["resourceVersion"])
            if seen < self._oldest:
                raise Refusal(410, "Expired", f"too old resource version: {seen} ({self._version})")
            return self._events_after(seen, self._epoch, query)

    def _events_after(self, seen: int, epoch: int, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        while True:
            with self._changed:
                while self._version <= seen and self._epoch == epoch:
                    self._changed.wait(10)
                if self._epoch != epoch:
                    return
                news = [event for event in self._events if event[0] > seen and _selected(event[2], query)]
                seen = self._version
            yield from ({"type": kind, "object": pod} for _, kind, pod in news)

    def _fault(self, method: str) -> None:
        if self.faults.get(method):
            raise self.faults[method].pop(0)

    def _list(self, query: dict[str, str]) -> Any:
        with self._changed:
            self.lists += 1
            items = [copy.deepcopy(pod) for pod in self._pods.values() if _selected(pod, query)]
            return {"kind": "PodList", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def _create(self, pod: Pod) -> Pod:
        name = pod["metadata"]["name"]
        with self._changed:
            if name in self._pods:
                raise Refusal(409, "AlreadyExists", f'pods "{name}" already exists')
            pod["metadata"] |= {"uid": f"uid-{name}", "namespace": NAMESPACE, "creationTimestamp": pod_statuses.SINCE}
            pod["status"] = self.on_create()
            if pod["status"].get("podIP"):
                pod["spec"]["nodeName"] = "node-1"
            self._write("ADDED", pod)
            return copy.deepcopy(pod)

    def _delete(self, name: str, query: dict[str, str]) -> Pod:
        with self._changed:
            if name not in self._pods:
                raise Refusal(404, "NotFound", f'pods "{name}" not found')
            pod = copy.deepcopy(self._pods[name])
            grace = int(query.get("gracePeriodSeconds", pod["spec"]["terminationGracePeriodSeconds"]))
            has_ended = pod["status"]["phase"] in ("Failed", "Succeeded") or "nodeName" not in pod["spec"]
            pod["metadata"] |= {"deletionTimestamp": pod_statuses.SINCE, "deletionGracePeriodSeconds": grace}
            self._write("DELETED" if has_ended or not grace else "MODIFIED", pod)
            goes_on = name in self._pods
        if goes_on:
            self.on_sigterm(name)
        return pod

    def _write(self, kind: str, pod: Pod) -> None:
        self._version = next(self._versions) + 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        if kind == "DELETED":
            del self._pods[pod["metadata"]["name"]]
        else:
            self._pods[pod["metadata"]["name"]] = pod
        self._events.append((self._version, kind, copy.deepcopy(pod)))
        self._changed.notify_all()


def _selected(pod: Pod, query: dict[str, str]) -> bool:
    wanted = [pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair]
    return all(pod["metadata"].get("labels", {}).get(name) == value for name, value in wanted)


def _handler(fake: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            try:
                if query.get("watch") == "true":
                    self._stream(fake.watch(query))
                    return
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                self._send(200, fake.answer(self.command, url.path, query, body))
            except Refusal as refusal:
                self._send(refusal.code, refusal.body, refusal.retry_after)

        do_POST = do_DELETE = do_GET

        def _send(self, code: int, answer: Any, retry_after: int | None = None) -> None:
            payload = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            self.end_headers()
            self.wfile.write(payload)

        def _stream(self, events: Iterator[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for event in events:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is worth a line."""

    return Handler
