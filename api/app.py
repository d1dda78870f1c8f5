"""The application factory."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3_swagger.plugins import RegisterPlugin as Swagger  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

import promptq
from api import errors
from api.http import access, instrument
from api.prompt_limit import PromptLimit
from api.schemas import ErrorResponse
from api.services import EXTENSION, Services
from api.submit_metrics import SubmitMetrics
from api.views import fleet, generate, health, jobs, jobs_batch, status
from api.waiting.submit_batcher import SubmitBatcher
from api.waiting.waiters import Waiters
from promptq.contract.metrics import ApiMetrics
from promptq.contract.settings import ApiSettings
from promptq.queue import model_facts
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore, connect

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
    for module in (jobs, jobs_batch, generate, fleet, status, health):
        app.register_api(module.blueprint)
    _add_docs(app, settings)
    status.register(app)
    return app


def _services(settings: ApiSettings, store: JobStore | None, waiters: Waiters | None) -> Services:
    store = store or JobStore(connect(settings.redis_url, settings.redis_timeout_seconds), settings)
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    submit_metrics = SubmitMetrics(metrics, settings.model_id)
    return Services(
        settings=settings,
        store=store,
        observer=Observer(store.client, settings),
        waiters=waiters or Waiters(settings.redis_url, settings.keys.done_channel),
        registry=registry,
        metrics=metrics,
        access=access.Access(settings, store),
        prompt_limit=PromptLimit(partial(model_facts.read, store.client, settings.keys.model(settings.model_id))),
        submit_batcher=SubmitBatcher(store, submit_metrics.count),
        submit_metrics=submit_metrics,
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
