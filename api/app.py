"""The application factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3_swagger.plugins import RegisterPlugin as Swagger  # type: ignore[import-untyped]

import promptq
from api.current import EXTENSION
from api.http import error_responses, guard, instrument
from api.http.blueprints import OpenPages
from api.schemas import ErrorResponse
from api.services import make_services
from api.views import events, fleet, generate, health, jobs, jobs_batch, status, usage
from api.views.openai import batches, completions, embeddings, files, models, responses, webhook_secret, webhooks
from promptq.contract.settings import ApiSettings
from promptq.queue.listener import Listener
from promptq.queue.store import JobStore
from promptq.runtime import failpoints

DESCRIPTION = "Submit prompts, and poll, wait for or cancel the jobs that they become."
VIEWS = (
    jobs, jobs_batch, events, generate, completions, embeddings, responses, files, batches, webhooks,
    webhook_secret, models, fleet, usage, status, health,
)  # fmt: skip
"""The modules with endpoints; each has a `blueprint`, which says who may call it. A new one is added here."""


def create_app(
    settings: ApiSettings | None = None,
    store: JobStore | None = None,
    make_listener: Callable[..., Listener] = Listener,
) -> OpenAPI:
    """Make the application. Needs no Redis yet: connections are made when they are needed.

    Args:
        settings: read from the environment when not given.
        store: for tests; made from the settings when not given.
        make_listener: for tests: makes what hears messages.
    """
    settings = settings or ApiSettings.load()
    failpoints.arm(settings.failpoints)
    app = OpenAPI(
        __name__,
        info=Info(title="promptq", version=promptq.__version__, description=DESCRIPTION),
        security_schemes={"key": {"type": "http", "scheme": "bearer"}},
        doc_ui=False,
        validation_error_status="default",
        validation_error_model=ErrorResponse,
        static_folder=None,
    )
    app.url_map.merge_slashes = False  # an id that is empty is no path, rather than a redirect to another one
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions[EXTENSION] = make_services(settings, store, make_listener)
    error_responses.register(app)
    instrument.register(app)
    guard.register(app)
    for module in VIEWS:
        app.register_api(module.blueprint)
    app.register_blueprint(status.pages)
    _add_docs(app, settings)
    return app


def _add_docs(app: OpenAPI, settings: ApiSettings) -> None:
    """The schema at /openapi.json, and Swagger's page over it at /docs; open to everyone, as the page is."""
    swagger: Blueprint = Swagger.register(doc_url="openapi.json")
    swagger.guarded = False  # type: ignore[attr-defined]
    app.register_blueprint(swagger)
    docs = OpenPages("docs", __name__)
    docs.add_url_rule("/openapi.json", "openapi_json", lambda: _schema(app, settings))
    docs.add_url_rule("/docs", "swagger", app.view_functions["swagger.swagger"])
    app.register_blueprint(docs)


def _schema(app: OpenAPI, settings: ApiSettings) -> dict[str, Any]:
    """What the types say, with the limits that are settings."""
    document: dict[str, Any] = app.api_doc
    models = document["components"]["schemas"]
    for model, field in (("SubmitJob", "max_tokens"), ("Generate", "max_new_tokens")):
        models[model]["properties"][field]["maximum"] = settings.max_tokens_limit
    return document
