"""Ends of which a receiver is told."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from promptq.contract.webhook_records import Endpoint, fingerprint
from promptq.contract.webhooks import EVENT_TYPES, derive_secret
from promptq.queue.webhooks import WebhookRecords
from promptq.runtime.secret_file import read_or_make
from tests.chaos.rig import Rig
from tests.chaos.work import Jobs


class Told(Jobs):
    """Short jobs of whose ends a receiver wants to be told."""

    def __init__(self, count: int = 20) -> None:
        super().__init__(count, words=2)
        self._receiver = Receiver()

    def begin(self, rig: Rig) -> None:
        secret = read_or_make("PROMPTQ_WEBHOOK_SECRET_FILE", rig.data_dir / "webhook.secret")
        own = fingerprint(derive_secret(secret, "we_1", 1))
        WebhookRecords(rig.store).put(Endpoint("we_1", "", self._receiver.url, tuple(EVENT_TYPES), fingerprint=own))
        super().begin(rig)

    def is_done(self, rig: Rig) -> bool:
        keys = rig.store.keys
        waits = rig.store.client.zcard(keys.deliveries_due("we_1")) + rig.store.client.xlen(keys.outbox())
        return super().is_done(rig) and not waits

    def facts(self, rig: Rig) -> Mapping[str, Any]:
        events: dict[str, list[str]] = defaultdict(list)
        for event, about in self._receiver.came:
            events[about].append(event)
        return {**super().facts(rig), "events": events, "told": self.ids}

    def close(self) -> None:
        self._receiver.shutdown()
        self._receiver.server_close()


class Receiver(ThreadingHTTPServer):
    """Answers 204. `came`: the id of each event, and of what it is about."""

    daemon_threads = True

    def __init__(self) -> None:
        self.came: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Receiving)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.came.append((self.headers["webhook-id"], body["data"]["id"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""
