"""The application on fakeredis, and the worker's part played by the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI

from api.app import create_app
from api.current import services_of
from api.waiting.waiters import Waiters
from promptq.contract.settings import ApiSettings
from promptq.queue.store import Claim, Ending
from tests.fakes import TimedStore, fake_redis

LIMITS = {"max_body_bytes": 200_000, "max_prompt_chars": 1000, "max_tokens_limit": 100}


class SilentListener:
    """Hears nothing; the test wakes the waiters itself."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.started = 0
        self.closed = False

    def start(self) -> None:
        self.started += 1

    def close(self) -> None:
        self.closed = True


class ReadingClient(FlaskClient):
    """Reads each response to its end and closes it, as every server does.

    Attributes:
        store: that of the application, for tests that set it.
    """

    store: TimedStore

    def open(self, *arguments: Any, buffered: bool = True, **options: Any) -> Any:
        return super().open(*arguments, buffered=buffered, **options)


OpenAPI.test_client_class = ReadingClient


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(_env_file=None, engine="echo", generate_timeout_seconds=0.05, **LIMITS)


@pytest.fixture
def store(settings: ApiSettings) -> TimedStore:
    return TimedStore(fake_redis(), settings)


@pytest.fixture
def app(settings: ApiSettings, store: TimedStore) -> OpenAPI:
    return create_app(settings, store, SilentListener)


@pytest.fixture
def waiters(app: OpenAPI) -> Waiters:
    return services_of(app).waiters


@pytest.fixture
def http(app: OpenAPI) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def finish(store: TimedStore, waiters: Waiters) -> Callable[[Callable[[Claim], Ending]], Claim]:
    """Claim the one waiting job, end it as told, and announce that."""

    def end(how: Callable[[Claim], Ending]) -> Claim:
        (claim,) = store.claim("w1", 1, time.time())
        assert store.finish("w1", [how(claim)], time.time()) == [True]
        waiters.wake("", claim.id)
        return claim

    return end


@pytest.fixture
def metric(http: FlaskClient) -> Callable[[str], float]:
    """One sample of /metrics, 0 where it is absent."""

    def read(sample: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample + " ")), 0.0)

    return read
