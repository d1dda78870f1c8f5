"""OpenAI's forms: what a request asks of a job, and how errors are told. The SDK itself is in tests/integration."""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import ValidationError

from api.app import create_app
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Job, JobError, Result, Status
from promptq.contract.queues import QueueName
from promptq.contract.request import MAX_SEED, JobRequest
from promptq.contract.settings import ApiSettings
from promptq.openai.answers import Completions, whole
from promptq.openai.errors import error_fields, failure, retry_headers, status_for
from promptq.openai.fields import ChatCompletion, Completion
from tests.fakes import TimedStore
from tests.unit.api.conftest import SilentListener

HELLO = [{"role": "user", "content": "Hello"}]
RESULT = Result("Hi there", "stop", "m", 3, 2)
JOB = Job("j", Status.SUCCEEDED, QueueName("m", "low"), 12.7, result=RESULT)


def chat(**fields: Any) -> dict[str, Any]:
    body = ChatCompletion.model_validate_json(json.dumps({"model": "m", "messages": HELLO, **fields}))
    return JobRequest.model_validate(body.jobs(2048)[0]).model_dump(exclude_defaults=True, exclude={"model"})


class TestRequest:
    def test_what_is_not_said_is_as_openai_has_it(self) -> None:
        assert chat() == {"messages": HELLO, "max_tokens": 2048, "temperature": 1.0}

    @pytest.mark.parametrize(
        ("fields", "asked"),
        [
            ({"max_tokens": 5}, {"max_tokens": 5}),
            ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
            ({"stop": "."}, {"stop": ["."]}),
            ({"service_tier": "priority"}, {"priority": "high"}),
            ({"service_tier": "flex"}, {"priority": "low"}),
            ({"service_tier": "flex", "priority": "high"}, {"priority": "high"}),
            ({"seed": -1}, {"seed": MAX_SEED}),
            ({"top_p": 0}, {"top_p": 1e-9}),
            ({"top_k": 4, "ttl_seconds": 9.5, "timeout_seconds": 3, "cache": False},
             {"top_k": 4, "ttl_seconds": 9.5, "timeout_seconds": 3.0, "cache": False}),
            (dict.fromkeys(["temperature", "top_p", "seed", "stop", "n", "tools", "max_tokens"]), {}),
            ({"presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"5": -100}, "min_p": 0.1},
             {"presence_penalty": 0.5, "frequency_penalty": -1.0, "logit_bias": {"5": -100.0}, "min_p": 0.1}),
            ({"response_format": {"type": "text"}}, {}),
            ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
            ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1]}}}},
             {"json_schema": {"enum": [1]}}),
            ({"user": "u", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": False}, {}),
        ],
    )  # fmt: skip
    def test_fields_reach_the_job(self, fields: dict[str, Any], asked: dict[str, Any]) -> None:
        assert chat(**fields).items() >= ({"temperature": 1.0} | asked).items()

    def test_parts_and_roles_are_what_the_template_knows(self) -> None:
        parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
        messages = [{"role": "developer", "content": parts, "name": "x"}, *HELLO]
        assert chat(messages=messages)["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]

    @pytest.mark.parametrize(
        ("fields", "at"),
        [
            ({"n": 129}, "n"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"tools": [{}]}, "tools"),
            ({"response_format": {"type": "grammar"}}, "response_format"),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "no name", "schema": {}}}},
                "response_format",
            ),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
            ({"messages": []}, "messages"),
            ({"temperature": 3}, "temperature"),
            ({"reasoning_effort": "high"}, "reasoning_effort"),
        ],
    )
    def test_what_would_change_the_text_and_is_not_done_is_refused(self, fields: dict[str, Any], at: str) -> None:
        with pytest.raises(ValidationError) as caught:
            chat(**fields)
        assert caught.value.errors()[0]["loc"][0] == at

    @pytest.mark.parametrize(
        ("prompt", "prompts"),
        [
            ("Once", [{"prompt": "Once"}]),
            (["Once"], [{"prompt": "Once"}]),
            (["Once", "twice"], [{"prompt": "Once"}, {"prompt": "twice"}]),
            ([5, 6], [{"prompt_token_ids": [5, 6]}]),
            ([[5], [6, 7]], [{"prompt_token_ids": [5]}, {"prompt_token_ids": [6, 7]}]),
        ],
    )
    def test_a_completion_has_openais_own_limit_and_all_kinds_of_prompts(
        self, prompt: Any, prompts: list[dict[str, Any]]
    ) -> None:
        jobs = Completion.model_validate({"model": "m", "prompt": prompt}).jobs(2048)
        assert [{name: job[name] for name in wanted} for job, wanted in zip(jobs, prompts, strict=True)] == prompts
        assert {job["max_tokens"] for job in jobs} == {16}

    @pytest.mark.parametrize("prompt", [[], [[]], ["a", 5], [5, "a"], [-1], [5.5], "", [""], [True]])
    def test_other_prompts_are_refused(self, prompt: Any) -> None:
        with pytest.raises(ValidationError):
            Completion.model_validate({"model": "m", "prompt": prompt})

    def test_texts_of_one_prompt_differ_in_their_seeds(self) -> None:
        body = Completion.model_validate({"model": "m", "prompt": ["a", "b"], "n": 2, "seed": 2**63 - 1})
        jobs = [(job["prompt"], job["seed"]) for job in body.jobs(16)]
        assert jobs == [("a", 2**63 - 1), ("a", 0), ("b", 2**63 - 1), ("b", 0)]
        assert [job["seed"] for job in Completion.model_validate({"model": "m", "prompt": "a", "n": 2}).jobs(16)] == [
            None,
            None,
        ]

    def test_too_many_texts_are_refused_by_name(self) -> None:
        body = Completion.model_validate({"model": "m", "prompt": ["a"] * 3, "n": 43})
        with pytest.raises(InvalidRequest) as caught:
            body.check()
        assert caught.value.param == "n"


class TestChunks:
    def test_a_stream_tells_each_piece_once_and_then_how_it_ended(self) -> None:
        (chunks,) = Completions("chat", [JOB], includes_usage=True).forms().values()
        said = [*chunks.text("Hi"), *chunks.text("Hi"), *chunks.text("Hi there"), *chunks.end(JOB)]
        *events, last = [text.removeprefix("data: ").strip() for text in said]
        assert last == "[DONE]"
        read = [json.loads(event) for event in events]
        assert [one["choices"][0]["delta"] for one in read[:-1]] == [
            {"role": "assistant", "content": "", "refusal": None}, {"content": "Hi"}, {"content": " there"}, {},
        ]  # fmt: skip
        assert [one["usage"] for one in read[:-1]] == [None] * 4
        assert (read[-1]["choices"], read[-1]["usage"]["total_tokens"]) == ([], 5)
        assert {(one["id"], one["object"], one["created"]) for one in read} == {
            ("chatcmpl-j", "chat.completion.chunk", 12)
        }

    def test_without_being_asked_nothing_is_said_of_usage(self) -> None:
        (chunks,) = Completions("text", [JOB], includes_usage=False).forms().values()
        said = "".join([*chunks.text("Hi"), *chunks.end(JOB)])
        assert "usage" not in said
        assert '"text":"Hi"' in said

    def test_the_whole_answer(self) -> None:
        assert whole("text", [JOB], [RESULT])["choices"][0]["text"] == "Hi there"
        assert whole("chat", [JOB], [RESULT])["choices"][0]["message"]["content"] == "Hi there"

    def test_each_prompt_counts_once_however_many_texts_it_has(self) -> None:
        answer = whole("text", [JOB] * 6, [RESULT] * 6, prompts=2)
        assert [choice["index"] for choice in answer["choices"]] == list(range(6))
        counts = (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
        assert counts == (2 * RESULT.prompt_tokens, 6 * RESULT.completion_tokens)

    def test_what_counts_as_failure(self) -> None:
        assert failure(JOB) is None
        cancelled = failure(replace(JOB, status=Status.CANCELLED))
        assert cancelled is not None
        assert cancelled.type == "cancelled"
        error = JobError("timeout", "too long")
        assert failure(replace(JOB, status=Status.FAILED, error=error)) is error


class TestErrors:
    def test_wrong_fields_are_400_and_named_in_the_message(self) -> None:
        assert status_for(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request") is HTTPStatus.BAD_REQUEST
        assert status_for(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_conflict") is HTTPStatus.CONFLICT
        assert status_for(HTTPStatus.NOT_FOUND, "model_not_found") is HTTPStatus.NOT_FOUND
        assert error_fields(HTTPStatus.BAD_REQUEST, "invalid_request", "too large", "n") == {
            "message": "n: too large", "type": "invalid_request_error", "param": "n", "code": "invalid_request",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("status", "seconds", "headers"),
        [
            (400, None, {}), (404, None, {}), (409, None, {"x-should-retry": "false"}),
            (504, None, {"x-should-retry": "false"}),
            (429, 3, {"x-should-retry": "true", "retry-after-ms": "3000"}),
            (503, 1, {"x-should-retry": "true", "retry-after-ms": "1000"}),
        ],
    )  # fmt: skip
    def test_the_sdk_is_told_whether_to_try_again(
        self, status: int, seconds: int | None, headers: dict[str, str]
    ) -> None:
        assert retry_headers(HTTPStatus(status), seconds) == headers


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ('{"model": "other", "messages": [{"role": "user", "content": "x"}]}', 404, "model_not_found", "model"),
        ('{"model": "echo", "messages": []}', 400, "invalid_request", "messages"),
        ('{"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 101}', 400,
         "invalid_request", "max_completion_tokens"),
        ("{", 400, "invalid_json", "body"),
    ],
)  # fmt: skip
def test_errors_have_openais_form(http: FlaskClient, body: str, status: int, code: str, param: str) -> None:
    answer = http.post("/v1/chat/completions", data=body)
    assert answer.status_code == status
    error = answer.json["error"]
    assert (error["code"], error["param"], error["type"].endswith("_error")) == (code, param, True)


def test_a_number_is_no_boolean(http: FlaskClient) -> None:
    answer = http.post("/v1/completions", json={"model": "echo", "prompt": "y", "echo": 0})
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "echo")


def test_a_full_queue_tells_when_to_come_back(http: FlaskClient, store: TimedStore) -> None:
    store.settings = store.settings.model_copy(update={"max_queue_jobs": 1})
    assert http.post("/v1/jobs", json={"prompt": "x", "cache": False}).status_code == 202
    answer = http.post("/v1/completions", json={"model": "echo", "prompt": "y"})
    assert (answer.status_code, answer.json["error"]["type"]) == (429, "rate_limit_error")
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after-ms"]) == 1000 * int(answer.headers["Retry-After"])


def test_a_call_that_waits_too_long_cancels_its_job(settings: ApiSettings, store: TimedStore) -> None:
    settings = settings.model_copy(update={"foreground_timeout_seconds": 0.05})
    http = create_app(settings, store, SilentListener).test_client()
    answer = http.post("/v1/completions", json={"model": "echo", "prompt": "y"})
    assert (answer.status_code, answer.json["error"]["code"]) == (504, "timeout")
    assert answer.headers["x-should-retry"] == "false"
    (job_id,) = [key.decode().removeprefix("rq:job:") for key in store.client.keys("rq:job:*")]
    assert store.get(job_id).status is Status.CANCELLED


def test_what_a_tool_gave_back_may_be_empty_and_so_may_the_content_beside_calls() -> None:
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [called]},
             {"role": "tool", "tool_call_id": "c", "content": ""}]  # fmt: skip
    found = chat(messages=turns)["messages"]
    assert [turn.get("content") for turn in found] == ["Hello", None, ""]
    with pytest.raises(ValidationError, match=r"messages.0.content\n.*at least 1 character"):
        chat(messages=[{"role": "user", "content": ""}])
