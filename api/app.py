"""The application factory."""

from __future__ import annotations

from flask import redirect, url_for
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3_swagger.plugins import RegisterPlugin as Swagger  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

import promptq
from api import access, errors, fleet, generate, health, instrument, jobs
from api.schemas import ErrorResponse
from api.services import EXTENSION, Services
from api.waiters import Waiters
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
    for module in (jobs, generate, fleet, health):
        app.register_api(module.blueprint)
    _add_docs(app)
    return app


def _services(settings: ApiSettings, store: JobStore | None, waiters: Waiters | None) -> Services:
    store = store or JobStore(connect(settings.redis_url, settings.redis_timeout_seconds), settings)
    registry = CollectorRegistry()
    return Services(
        settings=settings,
        store=store,
        observer=Observer(store.client),
        waiters=waiters or Waiters(settings.redis_url),
        registry=registry,
        metrics=ApiMetrics(registry),
        access=access.Access(settings, store),
    )


def _add_docs(app: OpenAPI) -> None:
    """The schema at /openapi.json, and Swagger's page over it at /docs."""
    app.register_blueprint(Swagger.register(doc_url="openapi.json"))
    app.add_url_rule("/openapi.json", "openapi_json", lambda: app.api_doc)
    app.add_url_rule("/docs", "docs", app.view_functions["swagger.swagger"])
    app.add_url_rule("/", "home", lambda: redirect(url_for("docs")))
