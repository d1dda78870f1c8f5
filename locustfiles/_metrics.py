"""`/metrics` on Locust's web page, so that its numbers stand in Grafana beside the service's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response
from locust import events
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

QUANTILES = (0.5, 0.95, 0.99)
ROW = ("method", "name")


class LocustCollector(Collector):
    """Locust's rows as they are at the scrape."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def collect(self) -> Iterator[Metric]:
        """Users, requests, failures, and the quantiles of the last ten seconds."""
        users = self._environment.runner.user_count if self._environment.runner else 0
        yield GaugeMetricFamily("locust_users", "Users that run now.", value=users)
        requests = CounterMetricFamily("locust_requests", "Requests, or jobs, by row.", labels=ROW)
        failures = CounterMetricFamily("locust_failures", "Failures, by row.", labels=ROW)
        times = GaugeMetricFamily(
            "locust_response_time_seconds", "Quantiles over ten seconds.", labels=(*ROW, "quantile")
        )
        for entry in list(self._environment.stats.entries.values()):
            row = [entry.method, entry.name]
            requests.add_metric(row, entry.num_requests)
            failures.add_metric(row, entry.num_failures)
            for quantile in QUANTILES:
                times.add_metric([*row, f"{quantile * 100:.0f}"], _seconds(entry, quantile))
        yield from (requests, failures, times)


def _seconds(entry: Any, quantile: float) -> float:
    recent = entry.get_current_response_time_percentile(quantile) if entry.use_response_times_cache else None
    milliseconds = entry.get_response_time_percentile(quantile) if recent is None else recent
    return (milliseconds or 0) / 1000


@events.init.add_listener
def serve(environment: Any, **_: Any) -> None:
    """Add the route where there is a web page."""
    if not environment.web_ui:
        return
    registry = CollectorRegistry()
    registry.register(LocustCollector(environment))

    @environment.web_ui.app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
