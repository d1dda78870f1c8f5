"""What kubectl asks of an API server before it looks at an object: which kinds there are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helm_chart import Object


@contextmanager
def api_server(objects: Sequence[Object]) -> Iterator[str]:
    """The URL of a server that knows the kinds of these objects, and nothing else."""
    answers = _answers({(one["apiVersion"], one["kind"]) for one in objects})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            payload = json.dumps(found or {"kind": "Status", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is worth a line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _answers(kinds: set[tuple[str, str]]) -> dict[str, Any]:
    groups = []
    answers: dict[str, Any] = {"/api": {"kind": "APIVersions", "versions": ["v1"]}}
    for version in sorted({version for version, _ in kinds}):
        resources = [_resource(kind) for of, kind in sorted(kinds) if of == version]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if "/" in version:
            told = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append({"name": version.split("/")[0], "versions": [told], "preferredVersion": told})
    answers["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return answers


def _resource(kind: str) -> Object:
    plural = kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": ["create", "get"]}
