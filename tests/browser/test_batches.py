"""Batches on the status page, as a person follows them, cancels one, and runs what failed again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from promptq.contract.batch_lines import MOST_ERRORS, LineError
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api
from tests.integration.batches import create, dispatcher, line, write
from tests.integration.openai_clients import sdk
from tests.processes import wait_until, worker

__all__ = ["sdk"]

WORDS = " ".join(f"w{number}" for number in range(20))


@pytest.fixture(autouse=True)
def dispatching(server: EmbeddedServer, api: Api, store: TimedStore) -> Iterator[None]:
    """On a server that `store` has emptied."""
    with dispatcher(server, api.data_dir, lease_seconds=2):
        yield


def row(page: Any, batch_id: str) -> Any:
    return page.locator("#batches tr", has=page.locator(f"[title='{batch_id}']"))


def done(row: Any) -> int:
    found = re.search(r"(\d+) of \d+", row.inner_text())
    return int(found[1]) if found else 0


def test_a_batch_is_followed_to_its_end(
    page: Any, said: list[str], sdk: openai.OpenAI, server: EmbeddedServer, tmp_path: Path
) -> None:
    page.locator("#batches", has_text="none yet").wait_for()
    lines = [line(str(number), WORDS) for number in range(64)] + [line("bad", model="echo", messages=[])]
    batch = create(sdk, write(tmp_path, lines))
    seen = set()
    with worker(server, echo_tokens_per_second=10):
        row(page, batch.id).wait_for()

        def look() -> bool:
            seen.add(done(row(page, batch.id)))
            return "completed" in row(page, batch.id).inner_text()

        wait_until(look, 60, "the end of the batch")
    text = row(page, batch.id).inner_text()
    assert "65 of 65, 1 failed" in text
    assert "echo" in text
    assert len(seen) > 2, seen
    bar = row(page, batch.id).locator("progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("65", "65")
    assert said == []


def test_one_is_cancelled_and_what_did_not_run_is_retried(
    page: Any, said: list[str], sdk: openai.OpenAI, server: EmbeddedServer, tmp_path: Path
) -> None:
    batch = create(sdk, write(tmp_path, [line("a"), line("b")]))
    cancel = page.locator(f"[title='Cancel {batch.id}']")
    row(page, batch.id).locator("td", has_text="in_progress").wait_for()
    cancel.focus()
    page.evaluate("refresh()")  # what has the focus keeps it in the rows that come next
    assert page.evaluate("document.activeElement.title") == f"Cancel {batch.id}"
    page.keyboard.press("Enter")
    row(page, batch.id).locator("td", has_text="cancelled").wait_for()
    assert "2 of 2, 2 failed" in row(page, batch.id).inner_text()
    assert cancel.count() == 0
    with worker(server, echo_tokens_per_second=0):
        page.click(f"[title='Retry failed lines of {batch.id}']")
        row(page, batch.id).locator("td", has_text="completed").wait_for()
    assert row(page, batch.id).get_by_text("failed").count() == 0
    assert "echo" in row(page, batch.id).inner_text()
    assert said == []


def test_a_wrong_file_says_why_and_many_batches_are_shown_by_and_by(
    page: Any, said: list[str], sdk: openai.OpenAI, tmp_path: Path
) -> None:
    batch = create(sdk, write(tmp_path, [line("a"), "{", json.dumps({"custom_id": "<img src=x>"})]))
    row(page, batch.id).locator("td", has_text="line 2: This line is not parseable as valid JSON.").wait_for()
    assert "and 1 more" in row(page, batch.id).inner_text()
    assert row(page, batch.id).locator("button").count() == 0
    for _ in range(12):
        sdk.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/completions", completion_window="24h")
    row(page, batch.id).wait_for(state="detached")
    assert page.locator("#batches tr").count() == 12
    page.click("#more")
    row(page, batch.id).wait_for()
    assert page.locator("#more").is_hidden()
    assert said == []


def test_one_that_nobody_takes_is_told_beside_several_hundred(page: Any, said: list[str], store: TimedStore) -> None:
    """Records alone, which no dispatcher sees: those that failed have all the errors that one may have."""
    now, keys = time.time(), store.keys
    errors = json.dumps([LineError("invalid_json_line", "x" * 100, number).as_dict() for number in range(MOST_ERRORS)])
    fields = {
        "owner": "", "endpoint": "/v1/completions", "input_file_id": "file-1", "window": "24h", "status": "failed",
        "created_at": now - 60, "expires_at": now + 60, "output_file_id": "file-2", "error_file_id": "file-3",
        "errors": errors,
    }  # fmt: skip
    with store.client.pipeline() as pipe:
        for number in range(300):
            pipe.hset(keys.batch(f"batch_{number}"), mapping=fields)
            pipe.zadd(keys.batches(""), {f"batch_{number}": now - 600 + number})
        pipe.hset(keys.batch("batch_299"), mapping={"status": "validating", "errors": "[]"})
        pipe.execute()
    row(page, "batch_299").locator("td", has_text="no dispatcher has taken it").wait_for()
    assert page.locator("#batches tr").count() == 12
    assert row(page, "batch_298").get_by_text("and 99 more").count() == 1
    page.click("#more")
    row(page, "batch_200").wait_for()
    assert page.locator("#batches tr").count() == 100
    assert said == []
