"""`GET /v1/usage`: which days it covers, and which ranges it refuses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from flask.testing import FlaskClient


def test_the_last_thirty_days_are_what_nobody_named(http: FlaskClient) -> None:
    before = datetime.now(UTC).date()
    answer = http.get("/v1/usage").json
    assert answer["end"] in (before.isoformat(), datetime.now(UTC).date().isoformat())
    assert date.fromisoformat(answer["end"]) - date.fromisoformat(answer["start"]) == timedelta(days=29)
    assert (answer["days"], answer["total"]["jobs"]) == ([], 0)


def test_both_ends_are_included(http: FlaskClient) -> None:
    answer = http.get("/v1/usage?start=2026-01-31&end=2026-01-31").json
    assert (answer["start"], answer["end"]) == ("2026-01-31", "2026-01-31")
    assert http.get("/v1/usage?start=2024-01-01&end=2024-12-31").status_code == 200
    assert http.get("/v1/usage?end=0001-01-02").json["start"] == "0001-01-01"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start=yesterday", "start"), ("end=2026-02-30", "end"), ("end=20260131", "end"), ("end=1700000000", "end"),
        ("start=2026-01-02&end=2026-01-01", "start"), ("start=2024-01-01&end=2025-01-01", "start"), ("start=", "start"),
    ],
)  # fmt: skip
def test_a_bad_range_is_refused_by_its_field(http: FlaskClient, query: str, param: str) -> None:
    answer = http.get(f"/v1/usage?{query}")
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)
