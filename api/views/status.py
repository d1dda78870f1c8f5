"""`GET /`: one page that shows queues, workers and jobs, and submits a prompt; and `/v1/activity`, which it reads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from flask import Response

from api import visible_jobs
from api.current import services
from api.http.blueprints import OpenPages, StrictBlueprint
from api.presenter import job_resource, json_response
from api.schemas import Activity, ErrorResponse
from promptq.contract.job import Job
from promptq.queue.activity import recent

JOBS_SHOWN = 12
JOBS_LOOKED_AT = 100
"""More than are shown: with API keys in use, some of the latest jobs may be another key's."""
PAGE = Path(__file__).with_name("status.html")

blueprint = StrictBlueprint("status", __name__, tag="fleet", url_prefix="/v1")


pages = OpenPages("pages", __name__)


@pages.get("/")
def page() -> Response:
    """The page. Its policy allows its own script and style, by their hashes, and nothing from elsewhere."""
    text, policy = _page()
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/activity", responses={200: Activity, 503: ErrorResponse})
def activity() -> Response:
    """Counts since the beginning, and the latest jobs"""
    jobs = [job_resource(job) for job in islice(_visible(), JOBS_SHOWN)]
    return json_response(Activity(totals=services().observer.totals(), jobs=jobs))


def _visible() -> Iterator[Job]:
    return filter(None, visible_jobs.read_many(recent(services().store, JOBS_LOOKED_AT)))


@cache
def _page() -> tuple[str, str]:
    text = PAGE.read_text(encoding="utf-8")
    allowed = " ".join(f"{tag}-src {_hash(text, tag)};" for tag in ("script", "style"))
    return text, f"default-src 'none'; {allowed} connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def _hash(text: str, tag: str) -> str:
    """The element's content in the form of a Content-Security-Policy."""
    content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert content, f"status.html has no <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()}'"
