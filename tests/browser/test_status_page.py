"""The status page, used as a person would use it."""

from __future__ import annotations

import time
from typing import Any

import psutil

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, failure, submit
from tests.integration.apis import Api
from tests.processes import wait_until, worker

WORDS = " ".join(f"wörd{number}" for number in range(30))
ATTACK = "<img src=x onerror=\"document.title='broken'\">"


def put(store: TimedStore, prompt: str = WORDS, **fields: Any) -> str:
    return submit(store, prompt, now=time.time(), cache=False, **fields).job.id


def failed(store: TimedStore, count: int) -> list[str]:
    ids = [put(store, f"{number} fails") for number in range(count)]
    store.finish("w", [failure(claim) for claim in store.claim("w", count)])
    return ids


def grows(page: Any, box: str) -> list[str]:
    """The text of a box as it comes, at the moments at which it is another one."""
    seen: list[str] = []

    def look() -> bool:
        has_ended = page.inner_text(f"{box} .row span") in {"succeeded", "failed", "cancelled"}
        text = page.inner_text(f"{box} .said")
        if text not in seen:
            seen.append(text)
        return bool(text) and has_ended

    wait_until(look)
    return seen


def test_the_answer_to_a_prompt_comes_word_by_word(page: Any, said: list[str], server: EmbeddedServer) -> None:
    with worker(server, echo_tokens_per_second=20):
        page.fill("#prompt", WORDS)
        page.click("#send")
        seen = grows(page, "#tried")
    assert seen[-1] == WORDS
    assert len(seen) > 8
    assert all(WORDS.startswith(text) for text in seen)
    assert said == []


def test_prompts_and_answers_are_text_and_never_html(page: Any, said: list[str], server: EmbeddedServer) -> None:
    with worker(server, echo_tokens_per_second=0):
        page.fill("#prompt", ATTACK)
        page.click("#send")
        assert grows(page, "#tried")[-1] == ATTACK
        page.locator("#jobs", has_text="<img").wait_for()
    assert page.title() == "promptq"
    assert said == []


def test_a_job_of_the_list_is_opened_read_as_it_comes_and_cancelled(
    page: Any, said: list[str], server: EmbeddedServer, store: TimedStore
) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=5):
        page.click(f"[title='Open {job_id}']")
        page.locator("#opened .said", has_text="wörd3").wait_for()
        page.click("#opened button:text-is('Cancel')")
        page.locator("#opened .row span", has_text="cancelled").wait_for()
    text = page.inner_text("#opened .said")
    assert text
    assert WORDS.startswith(text)
    assert page.locator("#opened button:text-is('Cancel')").is_hidden()
    assert said == []


def test_a_failed_job_is_opened_and_tried_again(
    page: Any, said: list[str], server: EmbeddedServer, store: TimedStore
) -> None:
    (job_id,) = failed(store, 1)
    page.locator(f"#failed [title='Open {job_id}']").click()
    page.locator("#opened .error", has_text="engine_error").wait_for()
    page.click("#opened button:text-is('Retry')")
    page.locator("#opened .row span", has_text="queued").wait_for()
    with worker(server, echo_tokens_per_second=0):
        assert grows(page, "#opened")[-1] == "0 fails"
    assert page.inner_text("#opened .error") == ""
    assert said == []


def test_failed_jobs_are_tried_again_one_by_one_or_all(page: Any, said: list[str], store: TimedStore) -> None:
    ids = failed(store, 15)
    row = page.locator("#failed tr", has=page.locator("button.link")).first
    first = row.locator("button.link").get_attribute("title").removeprefix("Open ")
    row.locator("button:text-is('Retry')").click()
    wait_until(lambda: store.get(first).status is Status.QUEUED)
    assert {store.get(job_id).status for job_id in ids if job_id != first} == {Status.FAILED}
    page.click("#all")
    wait_until(lambda: {store.get(job_id).status for job_id in ids} == {Status.QUEUED})
    page.locator("#all-said", has_text="14 queued again").wait_for()
    page.locator("#all").wait_for(state="hidden")
    assert said == []


def test_a_stream_goes_on_at_the_next_process_of_the_api(
    page: Any, server: EmbeddedServer, store: TimedStore, api: Api
) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=10):
        page.click(f"[title='Open {job_id}']")
        page.locator("#opened .said", has_text="wörd3").wait_for()
        for process in psutil.Process(api.process.pid).children():
            process.kill()
        assert grows(page, "#opened")[-1] == WORDS
