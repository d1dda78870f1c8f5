"""No input gives a 5xx: bodies, headers, ids and queries made up by hypothesis."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FIELDS = ["prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "priority", "role",
          "content", "ttl_seconds", "timeout_seconds", "cache", "max_new_tokens"]  # fmt: skip
TEXT = st.text(max_size=30)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["user", "high", "a\x00"])
NAMES = st.sampled_from(FIELDS) | TEXT
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6))
BODIES = st.dictionaries(NAMES, JSON, max_size=8).map(lambda fields: {"prompt": "x"} | fields) | JSON
HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=50)
ANSWERS = {200, 202, 400, 404, 405, 409, 413, 422, 429}

fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(body=BODIES, path=st.sampled_from(["/v1/jobs", "/v1/jobs/mine"]))
def test_json_of_any_shape(http: FlaskClient, body: Any, path: str) -> None:
    call = http.put if path.endswith("mine") else http.post
    assert call(path, data=json.dumps(body)).status_code in ANSWERS


@fuzz
@given(body=st.binary(max_size=200) | st.just(b'{"prompt": "x"}'), prefer=HEADER, key=HEADER, request_id=HEADER)
def test_bytes_and_headers(http: FlaskClient, body: bytes, prefer: str, key: str, request_id: str) -> None:
    headers = {"Prefer": f"wait=0, {prefer}", "Idempotency-Key": key, "X-Request-ID": request_id}
    assert http.post("/v1/jobs", data=body, headers=headers).status_code in ANSWERS


@fuzz
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@given(path=TEXT, query=TEXT)
def test_paths_and_queries(http: FlaskClient, method: str, path: str, query: str) -> None:
    answer = http.open(f"/v1/jobs/{quote(path)}", method=method, query_string={"wait": query}, data=b'{"prompt": "x"}')
    assert answer.status_code in ANSWERS | {308}
