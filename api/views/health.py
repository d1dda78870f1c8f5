"""`/livez`, `/readyz`, `/metrics`: what supervisors and Prometheus ask."""

from __future__ import annotations

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.current import services
from api.errors import NotReady
from api.http.blueprints import StrictBlueprint
from api.presenter import json_response
from api.schemas import Alive, ErrorResponse, Ready
from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.queue.observe import FleetRecord
from promptq.queue.server_check import examine

blueprint = StrictBlueprint("health", __name__, tag="health", guarded=False)


@blueprint.get("/livez", responses={200: Alive})
def livez() -> Response:
    """Whether the process answers; asks nobody else"""
    return json_response(Alive())


@blueprint.get("/readyz", responses={200: Ready, 503: ErrorResponse})
def readyz() -> Response:
    """Whether a prompt sent now would be answered, and what should be otherwise with the queue's server"""
    try:
        warnings = examine(services().store.client, services().settings.keys)
        fleet = services().observer.fleet()
        if reason := _unready(fleet):
            raise NotReady(reason)
    except (SettingsError, RedisUnavailable) as error:
        raise NotReady(error.message) from error
    troubles = [f"Workers do not start, or not for long: {fleet.trouble}"] if fleet and fleet.trouble else []
    return json_response(Ready(warnings=warnings + troubles))


@blueprint.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def metrics() -> Response:
    """Prometheus metrics, summed over the API's processes"""
    return Response(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _unready(fleet: FleetRecord | None) -> str:
    if services().observer.workers():
        return ""
    if fleet and fleet.trouble:
        return f"No worker is registered: {fleet.trouble}"
    may_start = fleet and fleet.max_workers > 0
    return "" if may_start else "No worker is registered, and no scaler says that it may start one."


def _registry() -> CollectorRegistry:
    """Under gunicorn all processes' values, from their files; else this process's own."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:
        return services().registry
    return registry
