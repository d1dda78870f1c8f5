"""Hostile and mistaken bodies: always a 4xx, and the field named."""

from __future__ import annotations

import io
import json

import pytest
from flask.testing import FlaskClient

from tests.fakes import TimedStore

MESSAGES = '{"messages": [{"role": "user", "content": %s}]}'
DEEP = "[" * 50_000 + "]" * 50_000

BROKEN = [
    b"", b"{", b"\x00", b"\xff\xfe", b"{'prompt': 'x'}", b'{"prompt": "x"} x', b'{"prompt": "\\ud800"}',
    b'{"prompt": "a\x00"}',    b'{"prompt": "\xff"}', '{"prompt": "x"}'.encode("utf-16"),
    b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    DEEP.encode(), b'{"a": ' + DEEP.encode() + b"}", (MESSAGES % DEEP).encode(), b'{"prompt": "x"' + b"," * 1000,
]  # fmt: skip

WRONG = [
    ("null", "body"),
    ("[]", "body"),
    ("7", "body"),
    ('"{}"', "body"),
    ("{}", "prompt"),
    ('{"prompt": null}', "prompt"),
    ('{"prompt": ""}', "prompt"),
    ('{"prompt": 7}', "prompt"),
    ('{"prompt": ["x"]}', "prompt"),
    ('{"prompt": "a\\u0000b"}', "prompt"),
    ('{"prompt": "x", "prompt": "y"}', "prompt"),
    ('{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}', "prompt"),
    ('{"messages": []}', "messages"),
    ('{"messages": "x"}', "messages"),
    (MESSAGES % '""', "messages.0.content"),
    (MESSAGES % "{}", "messages.0.content"),
    ('{"messages": [{"role": "robot", "content": "x"}]}', "messages.0.role"),
    ('{"messages": [{"role": "user", "content": "x", "content": "x"}]}', "content"),
    ('{"messages": [{"role": "user", "content": "x", "name": "x"}]}', "messages.0.name"),
    ('{"prompt": "x", "max_token": 5}', "max_token"),
    ('{"prompt": "x", "max_tokens": "64"}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 64.0}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": true}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": null}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": -1}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 0}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 101}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 1' + "0" * 400 + "}", "max_tokens"),
    ('{"prompt": "x", "temperature": NaN}', "temperature"),
    ('{"prompt": "x", "temperature": Infinity}', "temperature"),
    ('{"prompt": "x", "temperature": 1e999}', "temperature"),
    ('{"prompt": "x", "temperature": "0"}', "temperature"),
    ('{"prompt": "x", "top_p": 0}', "top_p"),
    ('{"prompt": "x", "top_k": -1}', "top_k"),
    ('{"prompt": "x", "seed": -1}', "seed"),
    ('{"prompt": "x", "seed": 9223372036854775808}', "seed"),
    (json.dumps({"prompt": "x", "stop": ["a"] * 17}), "stop"),
    ('{"prompt": "x", "min_p": 2}', "min_p"),
    ('{"prompt": "x", "presence_penalty": NaN}', "presence_penalty"),
    ('{"prompt": "x", "frequency_penalty": "1"}', "frequency_penalty"),
    ('{"prompt": "x", "repetition_penalty": 0}', "repetition_penalty"),
    ('{"prompt": "x", "logit_bias": {"5": 101}}', "logit_bias.5"),
    ('{"prompt": "x", "logit_bias": {"five": 1}}', "logit_bias.five.[key]"),
    ('{"prompt": "x", "logit_bias": {"5": 1, "5": 2}}', "5"),
    ('{"prompt": "x", "stop": ["a", ""]}', "stop.1"),
    ('{"prompt": "x", "priority": "urgent"}', "priority"),
    ('{"prompt": "x", "ttl_seconds": 0}', "ttl_seconds"),
    ('{"prompt": "x", "timeout_seconds": -1}', "timeout_seconds"),
    ('{"prompt": "x", "cache": "yes"}', "cache"),
    ('{"prompt": "x", "\\u0000": 1}', "\x00"),
    (json.dumps({"prompt": "x" * 1001}), "prompt"),
    (json.dumps({"messages": [{"role": "user", "content": "x" * 501}] * 2}), "messages"),
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("path", ["/v1/jobs", "/generate"])
def test_what_is_not_json_is_400(http: FlaskClient, path: str, body: bytes) -> None:
    answer = http.post(path, data=body)
    assert (answer.status_code, answer.json["error"]["type"]) == (400, "invalid_json")
    assert answer.json["error"]["param"] == "body"


@pytest.mark.parametrize(("body", "param"), WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_is_422_and_names_the_field(
    http: FlaskClient, store: TimedStore, body: str, param: str
) -> None:
    answer = http.post("/v1/jobs", data=body)
    assert (answer.status_code, answer.json["error"]["type"]) == (422, "invalid_request")
    assert answer.json["error"]["param"] == param
    assert store.client.keys() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{}", "prompt"), ('{"prompt": ""}', "prompt"), ('{"prompt": "x", "max_tokens": 5}', "max_tokens"),
        ('{"prompt": "x", "max_new_tokens": 101}', "max_new_tokens"), ('{"prompt": "\\u0000"}', "prompt"),
        ('{"prompt": "x", "max_new_tokens": "5"}', "max_new_tokens"), ("[]", "body"),
    ],
)  # fmt: skip
def test_generate_names_its_own_fields(http: FlaskClient, body: str, param: str) -> None:
    answer = http.post("/generate", data=body)
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)


def test_a_very_long_field_name_is_not_sent_back_whole(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", json={"prompt": "x", "y" * 100_000: 1})
    assert answer.status_code == 422
    assert len(answer.data) < 1000


@pytest.mark.parametrize("size", [200_001, 10_000_000])
def test_a_large_body_is_413_and_names_the_body(http: FlaskClient, size: int) -> None:
    answer = http.post("/v1/jobs", data=b"x" * size)
    assert (answer.status_code, answer.json["error"]["type"]) == (413, "body_too_large")
    assert answer.json["error"]["param"] == "body"


def test_a_large_body_without_a_length_is_413_and_not_cut(http: FlaskClient) -> None:
    body = b'{"prompt": "x"}' + b" " * 300_000
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = http.post("/v1/jobs", input_stream=io.BytesIO(body), environ_overrides=environ)
    assert answer.status_code == 413


def test_a_body_that_breaks_off_is_400(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", input_stream=io.BytesIO(b'{"pro'), environ_overrides={"CONTENT_LENGTH": "100"})
    assert (answer.status_code, answer.json["error"]["type"]) == (400, "unreadable_body")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""])
def test_the_content_type_does_not_matter(http: FlaskClient, kind: str) -> None:
    assert http.post("/v1/jobs", data=b'{"prompt": "x"}', content_type=kind).status_code == 202


def test_a_compressed_body_is_415(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", data=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json["error"]["type"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("prompt", ["\U0001f600", "‮", "a\r\nb", "$(rm -rf /)", "'; FLUSHALL", "x" * 1000])
def test_any_text_is_a_prompt(http: FlaskClient, store: TimedStore, prompt: str) -> None:
    assert http.post("/v1/jobs", json={"prompt": prompt}).status_code == 202
    (claim,) = store.claim("w1", 1)
    assert prompt in claim.kwargs.values()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404), ("GET", "/v1/jobs/", 404), ("PATCH", "/v1/jobs", 405), ("DELETE", "/v1/jobs/x", 405),
        ("BREW", "/v1/jobs", 405), ("PUT", "/generate", 405), ("GET", "/v1/../../etc/passwd", 404),
    ],
)  # fmt: skip
def test_unknown_routes_and_methods_have_the_same_body(http: FlaskClient, method: str, path: str, status: int) -> None:
    answer = http.open(path, method=method)
    assert answer.status_code == status
    assert set(answer.json["error"]) == {"type", "message", "param"}
    assert ("Allow" in answer.headers) is (status == 405)
