"""Traces of real jobs, as a collector gets them: one from the client's span to the stored text, whoever ran it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import openai
import pytest

from promptq.contract.errors import SettingsError
from promptq.queue.embedded import EmbeddedServer
from promptq.runtime.traces import Traces
from promptq.runtime.tracing import make_traces
from tests.fakes import SETTINGS, TimedStore
from tests.integration import batches
from tests.integration.apis import Api, running
from tests.processes import ROOT, wait_until, worker
from tests.trace_receiver import Receiver, receiving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CLIENT = f"00-{TRACE}-{SPAN}-01"
TRACED = {"traces": "otlp", "echo_tokens_per_second": 40, "checkpoint_seconds": 0.1}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        for name, value in receiver.environment.items():
            monkeypatch.setenv(name, value)
        yield receiver


@pytest.fixture
def api(server: EmbeddedServer, store: TimedStore, receiver: Receiver, tmp_path: Path) -> Iterator[Api]:
    with running(server, tmp_path, api_processes=1, traces="otlp") as api:
        yield api


def test_one_trace_from_the_client_to_the_stored_text_over_two_workers(
    server: EmbeddedServer, store: TimedStore, receiver: Receiver, api: Api
) -> None:
    with worker(server, "first", **TRACED) as first:
        body = {"prompt": " ".join(map(str, range(80))), "max_tokens": 80, "cache": False}
        job_id = api.call("POST", "/v1/jobs", json=body, headers={"traceparent": FROM_CLIENT}).json()["id"]
        wait_until(lambda: store.client.xlen(SETTINGS.keys.progress(job_id)), what="the first tokens")
        first.terminate()
        first.wait(20)
    with worker(server, "second", **TRACED):
        wait_until(lambda: store.get(job_id).status.is_terminal, what="the end")
        wait_until(lambda: len(receiver.named("run")) == 2, what="the spans of both")
    wait_until(lambda: receiver.named("submit"), what="the span of the submit")
    (submit,) = receiver.named("submit")
    assert (submit.trace_id, submit.parent_id, submit.service) == (TRACE, SPAN, "promptq-api")
    assert submit.attributes["promptq.job.id"] == job_id
    runs = sorted(receiver.named("run"), key=lambda span: span.ended)
    assert [run.attributes["promptq.worker"] for run in runs] == ["first", "second"]
    assert [run.attributes["promptq.end"] for run in runs] == ["let go", "succeeded"]
    assert {(run.trace_id, run.parent_id, run.service) for run in runs} == {
        (TRACE, submit.span_id, "promptq-gpu-worker")
    }
    phases = receiver.below(runs[1])
    assert [phase.name for phase in phases] == ["wait", "claim", "prefill", "decode", "store"]
    assert all(before.ended == after.begun for before, after in pairwise(phases))
    assert (runs[1].begun, runs[1].ended) == (phases[0].begun, phases[-1].ended)
    assert runs[1].attributes["gen_ai.usage.output_tokens"] == 80
    assert runs[1].attributes["promptq.resumed_tokens"] > 0


def test_each_line_of_a_batch_has_a_trace_with_a_link_to_the_request_that_made_it(
    server: EmbeddedServer, receiver: Receiver, api: Api, tmp_path: Path
) -> None:
    sdk = openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="x")
    path = batches.write(tmp_path, [batches.line(f"line {number}") for number in range(3)])
    with worker(server, **TRACED), batches.dispatcher(server, tmp_path, traces="otlp"):
        batch = batches.create(sdk, path, extra_headers={"traceparent": FROM_CLIENT})
        assert batches.ended(sdk, batch.id).status == "completed"
        wait_until(lambda: len(receiver.named("run")) == 3, what="the spans of all lines")
        wait_until(lambda: len(receiver.named("submit")) == 4, what="the submits")
    (made,) = [span for span in receiver.named("submit") if span.service == "promptq-api"]
    assert (made.trace_id, made.attributes["promptq.batch.id"]) == (TRACE, batch.id)
    lines = [span for span in receiver.named("submit") if span.service == "promptq-dispatcher"]
    assert [span.links for span in lines] == [[made.span_id]] * 3
    assert len({span.trace_id for span in lines} - {TRACE}) == 3
    assert {run.parent_id for run in receiver.named("run")} == {span.span_id for span in lines}


def test_what_is_not_sampled_travels_on_and_makes_no_span(
    server: EmbeddedServer, store: TimedStore, receiver: Receiver, api: Api
) -> None:
    with worker(server, **TRACED):
        for parent in (FROM_CLIENT[:-1] + "0", FROM_CLIENT):
            job_id = api.submit("x", traceparent=parent).json()["id"]
            wait_until(lambda job_id=job_id: store.get(job_id).status.is_terminal)
        wait_until(lambda: receiver.named("run"))
    assert [span.attributes["promptq.job.id"] for span in receiver.named("run")] == [job_id]


def test_without_the_packages_a_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "promptq.runtime.traces_otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"requirements/traces\.txt"):
        make_traces("api", SETTINGS.model_copy(update={"traces": "otlp"}))


@pytest.mark.parametrize("program", ["api.app", "gpu_worker.__main__", "dispatcher.__main__"])
def test_switched_off_nothing_of_it_is_loaded(program: str) -> None:
    """But what redis-py looks for by itself."""
    heavy = "promptq.runtime.traces_otlp", "opentelemetry.sdk.trace", "opentelemetry.exporter"
    look = f"import sys, {program}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_switched_off_it_passes_on_what_came() -> None:
    traces = make_traces("api", SETTINGS)
    assert type(traces) is Traces
    with traces.submit(FROM_CLIENT) as span:
        assert span.traceparent == FROM_CLIENT
