"""`GET /`: one page that shows what goes on and tries a prompt; and `/v1/activity`, which it reads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from flask import Flask, Response
from flask_openapi3.models.tag import Tag

from api.http.validation import KEY_IF_ANY, StrictBlueprint
from api.schemas import Activity, ErrorResponse
from api.services import services
from api.views.presenter import job_resource, json_answer
from promptq.contract.job import Job
from promptq.queue.activity import recent

JOBS_SHOWN = 12
JOBS_LOOKED_AT = 100
"""With API keys, the latest jobs may be another's."""
PAGE = Path(__file__).with_name("status.html")

blueprint = StrictBlueprint(
    "status", __name__, url_prefix="/v1", abp_tags=[Tag(name="fleet")], abp_security=KEY_IF_ANY,
    abp_responses={503: ErrorResponse, "default": ErrorResponse},
)  # fmt: skip


def register(app: Flask) -> None:
    """The page itself is no call of the API, so it is not in the schema."""
    app.add_url_rule("/", "home", page)


def page() -> Response:
    """The page. Its policy allows its own script and style, by their hashes, and nothing from elsewhere."""
    text, policy = _page()
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/activity", responses={200: Activity})
def activity() -> Response:
    """Counts since the beginning, and the latest jobs"""
    model = services().settings.model_id
    jobs = [job_resource(job, model) for job in islice(_visible(), JOBS_SHOWN)]
    return json_answer(Activity(totals=services().observer.totals(), jobs=jobs))


def _visible() -> Iterator[Job]:
    parts = services()
    ids = recent(parts.store, JOBS_LOOKED_AT)
    return filter(None, parts.read_many(ids))


@cache
def _page() -> tuple[str, str]:
    text = PAGE.read_text()
    allowed = " ".join(f"{tag}-src {_hash(text, tag)};" for tag in ("script", "style"))
    return text, f"default-src 'none'; {allowed} connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def _hash(text: str, tag: str) -> str:
    """The element's content in the form of a Content-Security-Policy."""
    content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert content, f"status.html has no <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()}'"
