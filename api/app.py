"""The application factory."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3_swagger.plugins import RegisterPlugin as Swagger  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

import promptq
from api import access, bulk, errors, fleet, generate, health, instrument, jobs, status
from api.context import ContextLimit
from api.gathering import Gathering
from api.schemas import ErrorResponse
from api.services import EXTENSION, Services, now
from api.tally import Tally
from api.waiters import Waiters
from promptq import models
from promptq.metrics import ApiMetrics
from promptq.observe import Observer
from promptq.settings import ApiSettings
from promptq.store import JobStore, connect

DESCRIPTION = "Submit prompts, and poll, wait for or cancel the jobs that they become."


def create_app(
    settings: ApiSettings | None = None, store: JobStore | None = None, waiters: Waiters | None = None
) -> OpenAPI:
    """Make the application. Needs no Redis yet: connections are made when they are needed.

    Args:
        settings: read from the environment when not given.
        store: for tests; made from the settings when not given.
        waiters: likewise.
    """
    settings = settings or ApiSettings.load()
    app = OpenAPI(
        __name__,
        info=Info(title="promptq", version=promptq.__version__, description=DESCRIPTION),
        security_schemes={"key": {"type": "http", "scheme": "bearer"}},
        doc_ui=False,
        validation_error_status="default",
        validation_error_model=ErrorResponse,
        static_folder=None,
    )
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions[EXTENSION] = _services(settings, store, waiters)
    errors.register(app)
    instrument.register(app)
    access.register(app)
    for module in (jobs, bulk, generate, fleet, status, health):
        app.register_api(module.blueprint)
    _add_docs(app, settings)
    status.register(app)
    return app


def _services(settings: ApiSettings, store: JobStore | None, waiters: Waiters | None) -> Services:
    store = store or JobStore(connect(settings.redis_url, settings.redis_timeout_seconds), settings)
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    tally = Tally(metrics, settings.model_id)
    return Services(
        settings=settings,
        store=store,
        observer=Observer(store.client),
        waiters=waiters or Waiters(settings.redis_url),
        registry=registry,
        metrics=metrics,
        access=access.Access(settings, store),
        context=ContextLimit(partial(models.read, store.client, settings.model_id)),
        gathering=Gathering(store, now, tally.count),
        tally=tally,
    )


def _add_docs(app: OpenAPI, settings: ApiSettings) -> None:
    """The schema at /openapi.json, and Swagger's page over it at /docs."""
    app.register_blueprint(Swagger.register(doc_url="openapi.json"))
    app.add_url_rule("/openapi.json", "openapi_json", lambda: _schema(app, settings))
    app.add_url_rule("/docs", "docs", app.view_functions["swagger.swagger"])


def _schema(app: OpenAPI, settings: ApiSettings) -> dict[str, Any]:
    """What the types say, with the limits that are settings."""
    document: dict[str, Any] = app.api_doc
    models = document["components"]["schemas"]
    for model, field in (("SubmitJob", "max_tokens"), ("Generate", "max_new_tokens")):
        models[model]["properties"][field]["maximum"] = settings.max_tokens_limit
    return document
