"""The least that Flask can be: JSON in, JSON out, no validation and no Redis. What `benchmarks.api` compares with."""

from __future__ import annotations

import uuid

from flask import Flask, Response, request
from flask.json import dumps

app = Flask(__name__)


@app.post("/v1/jobs")
def submit() -> Response:
    """Read the body, and answer with something."""
    body = request.get_json()
    answer = {"id": uuid.uuid4().hex, "status": "queued", "chars": len(body["prompt"])}
    return Response(dumps(answer), 202, mimetype="application/json")
