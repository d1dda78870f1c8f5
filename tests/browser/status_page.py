"""Take the picture of the status page.

    python tests/browser/status_page.py http://127.0.0.1:8000 docs/images/status.png

It needs Debian's chromium, and playwright, which `make test-extras` installs under .venvs/browser.
"""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
QUESTION = "Tell me the story of a lighthouse keeper and his cat."


def main(url: str, picture: str) -> None:
    """Ask something long, and take the picture while the answer comes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1120, "height": 1120})
        page.goto(url)
        page.locator("#cards .card").nth(5).wait_for()
        page.fill("#prompt", QUESTION)
        page.fill("#tokens", "200")
        page.click("#send")
        page.locator("#tried .row span", has_text="running").wait_for()
        page.wait_for_timeout(4500)
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
