"""`/livez`, `/readyz`, `/metrics`: what supervisors and Prometheus ask."""

from __future__ import annotations

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.current import services
from api.errors import NotReady
from api.http.blueprints import StrictBlueprint
from api.presenter import json_response
from api.schemas import Alive, ErrorResponse
from promptq.contract.errors import RedisUnavailable

blueprint = StrictBlueprint("health", __name__, tag="health", guarded=False)


@blueprint.get("/livez", responses={200: Alive})
def livez() -> Response:
    """Whether the process answers; asks nobody else"""
    return json_response(Alive())


@blueprint.get("/readyz", responses={200: Alive, 503: ErrorResponse})
def readyz() -> Response:
    """Whether a prompt sent now would be answered"""
    if reason := _unready():
        raise NotReady(reason)
    return json_response(Alive())


@blueprint.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def metrics() -> Response:
    """Prometheus metrics, summed over the API's processes"""
    return Response(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _unready() -> str:
    observer = services().observer
    try:
        fleet = observer.fleet()
        if observer.workers() or (fleet and fleet.max_workers > 0):
            return ""
    except RedisUnavailable as error:
        return error.message
    return "No worker is registered, and no scaler says that it may start one."


def _registry() -> CollectorRegistry:
    """Under gunicorn all processes' values, from their files; else this process's own."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:
        return services().registry
    return registry
