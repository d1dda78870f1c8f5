"""Embeddings that a server elsewhere makes: the whole way, and what the engine makes of a server that fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest
import torch
from pydantic_core import to_json
from transformers import AutoModel

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.upstream.engine import PATIENCE
from promptq.contract.embeddings import packed
from promptq.contract.request import GenerateRequest
from promptq.queue.embedded import EmbeddedServer
from tests.faulty_server import Act, hang, raw, reset, status
from tests.integration.apis import Api, running
from tests.integration.tiny_encoders import PLACES, save, word_pieces
from tests.integration.upstreams import NAME, Behind, before_faulty, embedding_upstream, models_file, worker_before
from tests.processes import wait_until

NEAR = 1e-5
INPUTS = ["the river was near", "a far town", "wind at night and at day on the road to the sea", "it"]
NUMBERS = [0.5, -1.25]
USAGE = {"prompt_tokens": 7, "total_tokens": 7}
BODY = to_json({"data": [{"embedding": packed(NUMBERS)}], "usage": USAGE}).decode()
GOOD = status(200, BODY)


@pytest.mark.usefixtures("client")
def test_the_whole_way_gives_what_the_model_gives(server: EmbeddedServer, tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny-bert")
    with embedding_upstream(tmp_path, folder) as far:
        options = {"capabilities": ["embeddings", "token_prompts"]}
        models = models_file(tmp_path, far.url, options, upstream_model=str(folder), context_length=PLACES)
        common = {"models_file": models, "engine": "upstream"}
        with running(server, tmp_path / "near", 1, **common) as api, worker_before(server, models), sdk_of(api) as sdk:
            written = sdk.embeddings.create(model=NAME, input=INPUTS)
            numbered = sdk.embeddings.create(model=NAME, input=[tokens(text) for text in INPUTS])
            with pytest.raises(openai.BadRequestError, match="dimensions: the model's embeddings have 32"):
                sdk.embeddings.create(model=NAME, input="a", dimensions=16)
            with pytest.raises(openai.BadRequestError, match="makes embeddings, and generates no text"):
                sdk.completions.create(model=NAME, prompt="a")
    expected = [pytest.approx(direct(folder, text), abs=NEAR) for text in INPUTS]
    for answer in (written, numbered):
        assert [one.embedding for one in answer.data] == expected
    assert written.usage.prompt_tokens == sum(len(tokens(text)) for text in INPUTS)


def sdk_of(api: Api) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0)


def tokens(text: str) -> list[int]:
    return word_pieces()(text, truncation=False)["input_ids"]


@torch.no_grad()
def direct(folder: Path, text: str) -> list[float]:
    """The mean of a row's hidden states, made 1 long, of the row alone."""
    states = AutoModel.from_pretrained(folder)(torch.tensor([tokens(text)])).last_hidden_state[0]
    return torch.nn.functional.normalize(states.mean(0), dim=0).tolist()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[..., Behind]]:
    with ExitStack() as stack:
        yield lambda *acts, **options: stack.enter_context(
            before_faulty(tmp_path, *acts, **{"capabilities": ["embeddings"], **options})
        )


def short(then: Act | None = None) -> Act:
    """The head of an answer and a part of its body, and what comes then; else the connection ends too early."""
    head = f"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"

    def act(connection: socket.socket) -> None:
        connection.sendall(f"{head}{BODY[:20]}".encode())
        if then:
            then(connection)

    return act


BROKEN_OFF = {
    "reset": short(reset), "closed": short(), "hangs": short(hang), "closed without a length": status(200, BODY[:20]),
    "huge": status(200, "9" * (5 * 2**20)), "nothing came": hang,
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN_OFF)
def test_an_answer_that_breaks_off_is_lost_and_the_server_left_alone(behind: Callable[..., Behind], how: str) -> None:
    it = behind(BROKEN_OFF[how], GOOD, read_timeout_seconds=0.5).run("a", task="embed")
    assert ([row.id for row in it.lost], it.handed_back, it.events) == (["a"], [], [])
    assert it.engine.free_slots() == 0
    assert it.server.url in it.engine.trouble
    it.run("a", task="embed")
    assert (it.end.embedding, it.end.prompt_tokens, it.engine.trouble) == (NUMBERS, 7, "")


HANDED_BACK = {
    "reset": reset, "closed": raw(b""), "no HTTP": raw(b"hello\r\n\r\n"), "500": status(500), "503": status(503),
    "404": status(404), "empty": status(200), "no embedding": status(200, '{"data": []}'),
    "no JSON's type": raw(b"HTTP/1.1 200 X\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"),
    "error": status(200, '{"error": {"message": "no memory", "code": 500}}'),
}  # fmt: skip


@pytest.mark.parametrize("how", HANDED_BACK)
def test_what_did_not_begin_or_makes_no_sense_goes_back(behind: Callable[..., Behind], how: str) -> None:
    it = behind(HANDED_BACK[how], GOOD).run("a", task="embed")
    assert (it.handed_back, it.lost, it.events) == (["a"], [], [])
    assert it.engine.trouble
    it.run("a", task="embed")
    assert (it.end.embedding, it.engine.trouble, it.engine.free_slots()) == (NUMBERS, "", 16)


def test_what_the_server_fails_on_again_and_again_costs_attempts(behind: Callable[..., Behind]) -> None:
    it = behind(status(200, '{"data": []}'), max_retry_seconds=0.06)
    for _ in range(PATIENCE + 1):
        it.run("a", task="embed")
    assert (it.handed_back, [row.id for row in it.lost]) == (["a"] * PATIENCE, ["a"])


def test_a_request_at_fault_fails_and_others_go_on(behind: Callable[..., Behind]) -> None:
    refusal = '{"error": {"message": "This model does not support specifying dimensions."}}'
    it = behind(status(400, refusal), status(400, refusal), GOOD, status(200, '{"data": [{"embedding": [1e99]}]}'))
    named = "dimensions: This model does not support specifying dimensions."
    assert it.run("a", task="embed", dimensions=2).end.error == ("invalid_request", named)
    assert it.run("a", task="embed").end.error == ("invalid_request", named.removeprefix("dimensions: "))
    assert it.run("a", task="embed", dimensions=2).end.embedding == NUMBERS
    assert it.run("a", task="embed").end.error[0] == "upstream_error"
    assert (it.engine.free_slots(), it.engine.trouble) == (16, "")


def test_a_server_that_ignores_the_size_is_found_out(behind: Callable[..., Behind]) -> None:
    it = behind(GOOD).run("a", task="embed", dimensions=3)
    assert it.end.error == ("invalid_request", "dimensions: the server gave 2 numbers in place of 3")
    assert it.end.embedding == ()


def test_a_deadline_and_a_cancel_close_a_request_that_hangs(behind: Callable[..., Behind]) -> None:
    it = behind(short(hang))
    assert it.run("a", task="embed", deadline=time.monotonic() + 0.2).end.reason is FinishReason.TIMEOUT
    it.engine.add([Row("b", GenerateRequest(task="embed", prompt="p"))])
    it.engine.cancel(["b"])
    wait_until(it.step_until_idle)
    assert (it.end.reason, it.end.embedding, it.handed_back, it.lost) == (FinishReason.CANCELLED, (), [], [])
