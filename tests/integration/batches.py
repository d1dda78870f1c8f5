"""A running service with batches, as the tests start it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from promptq.queue.embedded import EmbeddedServer
from tests.processes import start, wait_until

CHAT = "/v1/chat/completions"


@contextmanager
def dispatcher(server: EmbeddedServer, data_dir: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A dispatcher process, killed at the end if it still lives."""
    process = start("dispatcher", server, data_dir=data_dir, dispatcher_port=0, **settings)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def line(custom_id: str, words: str = "one two three", url: str = CHAT, **body: Any) -> dict[str, Any]:
    """A line that an echo answers with its words."""
    own = {"model": "echo", "messages": [{"role": "user", "content": words}], "max_tokens": 20}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body or own}


def write(folder: Path, lines: Sequence[Any]) -> Path:
    """A file of these lines, each as JSON unless it is text."""
    path = folder / "input.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def create(sdk: openai.OpenAI, path: Path, window: Any = "24h", **fields: Any) -> Any:
    """Upload the file, and run it."""
    with path.open("rb") as file:
        uploaded = sdk.files.create(file=file, purpose="batch")
    return sdk.batches.create(input_file_id=uploaded.id, completion_window=window, **({"endpoint": CHAT} | fields))


def ended(sdk: openai.OpenAI, batch_id: str, seconds: float = 60) -> Any:
    """The batch once it has ended."""

    def look() -> Any:
        batch = sdk.batches.retrieve(batch_id)
        return batch if batch.status in ("completed", "failed", "expired", "cancelled") else None

    return wait_until(look, seconds, f"the end of {batch_id}")


def entries(sdk: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """What a file has, by line."""
    if file_id is None:
        return []
    return [json.loads(one) for one in sdk.files.content(file_id).read().splitlines()]
