"""What clients of the API see of a server elsewhere: calls of tools, log probabilities, refusals, trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from promptq.queue.embedded import EmbeddedServer
from tests.faulty_server import DONE, Act, FaultyServer, delta, faulty, status, stream, text, usage
from tests.integration.apis import Api, running
from tests.integration.upstreams import NAME, models_file, worker_before
from tests.processes import wait_until

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ASKED: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
Before = Callable[..., tuple[Api, FaultyServer]]


@pytest.fixture
def before(server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> Iterator[Before]:
    """An API and a worker before a server that acts like this."""
    with ExitStack() as held:

        def start(*acts: Act, **options: Any) -> tuple[Api, FaultyServer]:
            far = held.enter_context(faulty(*acts))
            models = models_file(tmp_path, far.url, {"max_retry_seconds": 0.2, **options})
            held.enter_context(worker_before(server, models))
            return held.enter_context(running(server, tmp_path, 1, models_file=models, engine="upstream")), far

        yield start


def calls(*arguments: str) -> list[dict[str, Any]]:
    """Chunks of one call, its arguments in these parts."""
    begin = {"index": 0, "id": "theirs", "type": "function", "function": {"name": "look", "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": part}} for part in arguments]
    return [delta(tool_calls=[part]) for part in (begin, *parts)]


def test_calls_of_tools_are_calls_of_tools(before: Before) -> None:
    act = stream(
        delta(role="assistant", content=""), *calls('{"at": ', '"home"}'), delta("tool_calls"), usage(7, 8), DONE
    )
    api, far = before(act)
    answer = api.call("POST", "/v1/chat/completions", json=ASKED | {"tools": [TOOL], "tool_choice": "required"}).json()
    choice = answer["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"at": "home"}'}
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert answer["usage"]["completion_tokens"] == 8
    assert (far.bodies[0]["tools"], far.bodies[0]["tool_choice"]) == ([TOOL], "required")


def test_log_probabilities_are_shown(before: Before) -> None:
    content = [{"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169], "top_logprobs": []}]
    chunk = {"choices": [{"index": 0, "delta": {"content": "hé"}, "logprobs": {"content": content}}]}
    api, _ = before(stream(chunk, delta("stop"), usage(3, 1, cached=2), DONE))
    answer = api.call("POST", "/v1/chat/completions", json=ASKED | {"logprobs": True}).json()
    assert answer["choices"][0]["logprobs"]["content"] == content
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_what_the_entry_does_not_claim_is_refused_at_the_submit(before: Before) -> None:
    api, far = before(stream(text("x", "stop"), DONE), capabilities=["streaming"])
    answer = api.call("POST", "/v1/chat/completions", json=ASKED | {"logprobs": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")
    assert far.bodies == []


def test_what_the_server_says_of_a_request_is_the_answer(before: Before) -> None:
    api, _ = before(status(400, '{"error": {"message": "no such field: min_p"}}'))
    answer = api.call("POST", "/v1/chat/completions", json=ASKED | {"min_p": 0.5})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "no such field: min_p")


def test_a_text_that_is_always_lost_is_a_bad_gateway(before: Before) -> None:
    api, far = before(stream(delta(content="some")))
    answer = api.call("POST", "/v1/chat/completions", json=ASKED | {"cache": False})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
    assert len(far.bodies) == 3


def test_a_worker_says_why_it_takes_no_jobs(before: Before) -> None:
    good = stream(delta("stop", content="there"), usage(1, 1), DONE)
    api, far = before(*[status(401, '{"error": {"message": "wrong key"}}')] * 2, good)
    job = api.submit("x").json()

    def trouble() -> str:
        (worker,) = api.call("GET", "/v1/workers").json()["workers"]
        return worker["trouble"]

    seen = wait_until(trouble, what="trouble")
    assert f"{far.url}: HTTP 401: wrong key; next try with a job in" in seen
    wait_until(lambda: api.call("GET", f"/v1/jobs/{job['id']}").json()["status"] == "succeeded", what="the job")
    wait_until(lambda: not trouble(), what="the end of the trouble")
