"""Several models on one machine: real scaler, real workers, real API, all of one catalogue."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.integration.apis import Api, running
from tests.integration.scalers import Scaler, scaler
from tests.processes import wait_until

TWO = """
[[model]]
name = "a"
engine = "echo"

[[model]]
name = "b"
engine = "echo"
slots = 2
"""


@dataclass
class House:
    """The service, with its catalogue."""

    api: Api
    scaler: Scaler
    file: Path

    def submit(self, prompt: str, model: str = "", **fields: Any) -> dict[str, Any]:
        body = {"prompt": prompt, "cache": False, **fields} | ({"model": model} if model else {})
        reply = self.api.call("POST", "/v1/jobs", json=body)
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.api.call("GET", f"/v1/jobs/{job_id}").json())

    def ended(self, ids: list[str], seconds: float = 60) -> list[dict[str, Any]]:
        def all_ended() -> bool:
            found = [self.job(job_id) for job_id in ids]
            return all(job["status"] not in ("queued", "running") for job in found)

        wait_until(all_ended, seconds, "all jobs to end")
        return [self.job(job_id) for job_id in ids]

    def pools(self) -> dict[str, dict[str, Any]]:
        fleet = self.api.call("GET", "/v1/workers").json()["scaler"]
        return {pool["name"]: pool for pool in fleet["pools"]} if fleet else {}

    def trouble(self) -> str:
        return str(self.api.call("GET", "/v1/workers").json()["scaler"]["trouble"])

    def models(self) -> dict[str, str]:
        return {model["id"]: model["state"] for model in self.api.call("GET", "/v1/models").json()["data"]}

    def reload(self, text: str) -> None:
        self.file.write_text(text)
        for process in (self.api.process, self.scaler.process):
            process.send_signal(signal.SIGHUP)


@contextmanager
def housed(server: EmbeddedServer, folder: Path) -> Iterator[House]:
    """On an empty server."""
    with connect(server.url) as client:
        client.flushall()
    file = folder / "models.toml"
    file.write_text(TWO)
    with ExitStack() as stack:
        api = stack.enter_context(running(server, folder / "data", 1, models_file=file))
        fleet = stack.enter_context(
            scaler(server, models_file=file, max_workers=1, least_stay_seconds=0.5, echo_tokens_per_second=200)
        )
        made = House(api, fleet, file)
        wait_until(made.pools, what="the scaler")
        yield made


@pytest.fixture
def house(server: EmbeddedServer, tmp_path: Path) -> Iterator[House]:
    """For a test that changes the catalogue, or leaves work behind."""
    with housed(server, tmp_path) as made:
        yield made


@pytest.fixture(scope="class")
def lasting(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """For the tests of a class, one after the other."""
    with housed(server, tmp_path_factory.mktemp("house")) as made:
        yield made


class TestOneCatalogue:
    """Which stays as it is: one house for all."""

    def test_two_models_take_turns_on_one_worker_until_all_is_done(self, lasting: House) -> None:
        prompts = [(f"job {number} of {model}", model) for number in range(20) for model in ("a", "b")]
        ids = [lasting.submit(prompt, model)["id"] for prompt, model in prompts]
        found = lasting.ended(ids)
        assert [(job["output"]["text"], job["model"]) for job in found] == prompts
        held = 'promptq_scaler_decisions_total{action="hold",model="b",reason="waits_for_room"}'
        wait_until(lambda: (lasting.scaler.value(held) or 0) > 0, 10, held)
        assert lasting.scaler.value('promptq_jobs_requeued_total{reason="worker_lost"}') == 0

    def test_a_request_of_no_model_goes_to_the_default_one_and_an_unknown_one_is_refused_by_name(
        self, lasting: House
    ) -> None:
        assert lasting.submit("x")["model"] == "a"
        refused = lasting.api.call("POST", "/v1/jobs", json={"prompt": "x", "model": "c"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (404, "model_not_found")
        assert "Served: a, b." in refused.json()["error"]["message"]
        chat = {"model": "c", "messages": [{"role": "user", "content": "x"}]}
        refused = lasting.api.call("POST", "/v1/chat/completions", json=chat)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")

    def test_a_chat_goes_to_the_model_that_it_names(self, lasting: House) -> None:
        chat = {"model": "b", "messages": [{"role": "user", "content": "to b"}]}
        reply = lasting.api.call("POST", "/v1/chat/completions", json=chat).json()
        assert (reply["model"], reply["choices"][0]["message"]["content"]) == ("b", "to b")

    def test_queues_are_bounded_and_listed_by_model(self, lasting: House) -> None:
        lasting.submit("x", "b", priority="low")
        queues = lasting.api.call("GET", "/v1/queues").json()["queues"]
        assert [(queue["model"], queue["name"]) for queue in queues] == [
            (model, name) for model in ("a", "b") for name in ("high", "default", "low")
        ]


def test_who_waits_for_room_says_for_whose(house: House) -> None:
    house.submit("word " * 200, "a", max_tokens=200)
    wait_until(lambda: house.models()["a"] == "ready", what="a worker of a")
    house.submit("word " * 2000, "a", max_tokens=2000)
    house.submit("word", "b")
    wait_until(lambda: house.pools()["b"]["waiting"] == "waits for room that a holds")
    assert house.pools()["b"]["reason"] == "waits_for_room"


def test_a_model_comes_and_goes_while_all_runs(house: House) -> None:
    house.reload(TWO + '\n[[model]]\nname = "c"\nengine = "echo"\n')
    wait_until(lambda: "c" in house.models(), what="the API to read the catalogue")
    (job,) = house.ended([house.submit("new here", "c")["id"]])
    assert (job["output"]["text"], job["model"]) == ("new here", "c")
    house.reload(TWO)
    wait_until(lambda: "c" not in house.models())
    assert house.api.call("POST", "/v1/jobs", json={"prompt": "x", "model": "c"}).status_code == 404
    assert house.job(job["id"])["output"]["text"] == "new here"
    wait_until(lambda: "c" not in house.pools(), what="its pool to go")


def test_what_waits_for_a_model_that_is_gone_is_told(house: House) -> None:
    house.reload(TWO + '\n[[model]]\nname = "c"\nengine = "echo"\nmin_workers = 0\n')
    wait_until(lambda: "c" in house.models())
    house.scaler.process.send_signal(signal.SIGSTOP)
    job_id = house.submit("stranded", "c")["id"]
    house.file.write_text(TWO)
    house.scaler.process.send_signal(signal.SIGHUP)
    house.scaler.process.send_signal(signal.SIGCONT)
    said = "1 jobs of the model c wait, which is not in the catalogue"
    wait_until(lambda: house.trouble() == said, what="to be told")
    house.reload(TWO + '\n[[model]]\nname = "c"\nengine = "echo"\n')
    (job,) = house.ended([job_id])
    assert job["output"]["text"] == "stranded"


def test_a_file_that_is_wrong_changes_nothing(house: House) -> None:
    house.reload("model = 1")
    time.sleep(0.5)
    house.reload(TWO + '\n[[model]]\nname = "c"\nengine = "echo"\n')
    wait_until(lambda: "c" in house.models())
    assert house.ended([house.submit("still", "b")["id"]])[0]["output"]["text"] == "still"
