"""The page of a service with several models: which one is asked, and what waits for whose room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import FleetRecord, Observer, PoolRecord
from tests.fakes import SETTINGS
from tests.integration.apis import Api, running
from tests.processes import worker

MODELS = '[[model]]\nname = "a"\nengine = "echo"\n[[model]]\nname = "b"\nengine = "echo"\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "models.toml"
    file.write_text(MODELS)
    return file


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1, models_file=models) as api:
        yield api


def test_a_prompt_goes_to_the_model_that_is_chosen(
    page: Any, said: list[str], server: EmbeddedServer, models: Path
) -> None:
    with worker(server, models_file=models, worker_model="b", echo_tokens_per_second=0):
        page.locator("#models").wait_for()
        assert page.locator("#model option").all_text_contents() == ["a", "b"]
        page.select_option("#model", "b")
        page.fill("#prompt", "for b alone")
        page.click("#send")
        page.locator("#tried", has_text="for b alone").wait_for()
        page.locator("#queues tr", has_text="b").first.wait_for()
        assert page.input_value("#model") == "b"
    assert said == []


def test_who_waits_for_room_is_shown(page: Any, said: list[str], client: redis.Redis) -> None:
    pool = PoolRecord("b", 0, 1, 1, 0, "waits_for_room", "waits for a GPU that a holds")
    Observer(client, SETTINGS).publish_fleet(FleetRecord(0, 1, 1, pools=[pool]))
    page.locator("#waiting", has_text="b waits for a GPU that a holds").wait_for()
    assert said == []
