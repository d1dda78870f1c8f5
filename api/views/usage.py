"""`GET /v1/usage`: what the caller's jobs have used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from flask import Response

from api.current import owner, services
from api.http.blueprints import StrictBlueprint
from api.parameters import UsageQuery
from api.presenter import json_response
from api.schemas import ErrorResponse
from api.usage_schemas import UsageCounts, UsageDay, UsageReport
from promptq.contract.errors import InvalidRequest
from promptq.queue.usage import Usage, read

DEFAULT_DAYS = 30
MAX_DAYS = 366
OUTCOMES = ("succeeded", "failed", "cancelled", "expired")

blueprint = StrictBlueprint("usage", __name__, tag="fleet", url_prefix="/v1")


@blueprint.get("/usage", responses={200: UsageReport, **dict.fromkeys((422, 503), ErrorResponse)})
def usage(query: UsageQuery) -> Response:
    """Jobs and tokens of the caller's API key, by day and model"""
    days = _days(query)
    rows = [_row(found) for found in read(services().store, owner(), days)]
    start, end = days[0].isoformat(), days[-1].isoformat()
    return json_response(UsageReport(start=start, end=end, days=rows, total=_total(rows)))


def _days(query: UsageQuery) -> list[date]:
    end = query.end or datetime.fromtimestamp(services().store.now(), UTC).date()
    last = end.toordinal()
    first = query.start.toordinal() if query.start else max(1, last - DEFAULT_DAYS + 1)
    if first > last:
        raise InvalidRequest("The range begins after its end.", param="start")
    if last - first >= MAX_DAYS:
        raise InvalidRequest(f"The range has more than {MAX_DAYS} days.", param="start")
    return [date.fromordinal(day) for day in range(first, last + 1)]


def _row(found: Usage) -> UsageDay:
    jobs = sum(found.counts.get(outcome, 0) for outcome in OUTCOMES)
    return UsageDay(day=found.day.isoformat(), model=found.model, jobs=jobs, **found.counts)


def _total(rows: Sequence[UsageDay]) -> UsageCounts:
    return UsageCounts(**{name: sum(getattr(row, name) for row in rows) for name in UsageCounts.model_fields})
