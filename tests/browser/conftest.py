"""A page in headless Chromium, of an API and its workers that run. `make test-extras` installs what is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import Api, running

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1) as api:
        yield api


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-extras")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def said() -> list[str]:
    """What the page complains about: nothing, where the test expects nothing."""
    return []


@pytest.fixture
def page(api: Api, browser: Any, said: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1120, "height": 1400})
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://127.0.0.1:{api.port}/")
    page.locator("#cards .card").nth(5).wait_for()
    yield page
    page.screenshot(path=tmp_path / f"{request.node.name}.png")
    page.close()
