"""Use the status page in headless Chromium as a person would, and take its picture.

    python tests/browser/status_page.py http://127.0.0.1:8000 docs/images/status.png

Not part of `make test`: it needs Debian's chromium and `pip install playwright` in any environment.
"""

from __future__ import annotations

import sys

from playwright.sync_api import ConsoleMessage, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
QUESTION = "What is the capital of France?"
ATTACK = "<img src=x onerror=\"document.title='broken'\">"


def main(url: str, picture: str) -> None:
    """Raises AssertionError where the page does not do what it should."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1120, "height": 1060})
        said: list[str] = []
        page.on("console", lambda message: _note(message, said))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        page.locator("#cards .card").nth(5).wait_for()
        _ask(page, ATTACK)
        _ask(page, QUESTION)
        page.wait_for_timeout(5000)
        _check(page)
        page.screenshot(path=picture)
        assert said == [], said
        browser.close()
    print(f"ok; see {picture}")


def _ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.click("#send")
    page.locator("#send:enabled").wait_for(timeout=120_000)
    assert page.inner_text("#answer"), "no answer"
    print(f"{text!r} → {page.inner_text('#answer')!r}")


def _check(page: Page) -> None:
    assert page.title() == "promptq", "a prompt was read as HTML"
    assert page.locator("#queues tr").count() == 3
    assert page.locator("#workers tr").count() >= 1
    assert page.locator("#jobs tr").count() >= 2
    assert page.inner_text("#state").startswith("as of")


def _note(message: ConsoleMessage, said: list[str]) -> None:
    if message.type in ("error", "warning"):
        said.append(message.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
