"""What surrounds every view: released when the response has been sent or given up; by marks, not by lists of paths."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import pytest
from flask import Response
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI

from api import views
from api.api_keys import digest
from api.app import create_app
from api.current import services_of
from api.http.blueprints import OpenPages, StrictBlueprint, submits_jobs
from api.http.responses import until_closed
from promptq.contract.errors import InvalidRequest
from promptq.contract.settings import ApiSettings
from promptq.runtime import logs
from tests.fakes import TimedStore

KEY = {"Authorization": "Bearer a"}
OPEN = {"/", "/docs", "/livez", "/metrics", "/oauth2-redirect.html", "/open", "/openapi.json", "/readyz", "/swagger"}


def decorated(view: Callable[..., Response]) -> Callable[..., Response]:
    @wraps(view)
    def wrapper(**arguments: object) -> Response:
        return view(**arguments)

    return wrapper


@pytest.fixture
def app(tmp_path: Path, store: TimedStore) -> OpenAPI:
    """With API keys, and a view of each kind that there may be."""
    (tmp_path / "keys").write_text(f"ann {digest('a')}\n")
    app = create_app(ApiSettings(_env_file=None, engine="echo", api_keys_file=str(tmp_path / "keys")), store)
    guarded, pages = StrictBlueprint("new", __name__, url_prefix="/v1"), OpenPages("more", __name__)

    def words(last: Callable[[], str]) -> Iterator[str]:
        yield "one "
        yield "two "
        yield last()

    @guarded.get("/stream")
    def stream() -> Response:
        return Response(words(lambda: "three"))

    @guarded.get("/broken")
    def broken() -> Response:
        return Response(words(lambda: str(1 / 0)))

    @guarded.get("/logging")
    def logging_stream() -> Response:
        return Response(words(lambda: logging.getLogger("stream").info("last piece") or "three"))

    @guarded.post("/submit-in-other-order")
    @submits_jobs
    @decorated
    def submit_in_other_order() -> Response:
        raise InvalidRequest("no")

    @guarded.post("/submit")
    @submits_jobs
    def submit() -> Response:
        raise InvalidRequest("no")

    @guarded.post("/other")
    def other() -> Response:
        raise InvalidRequest("no")

    @pages.get("/open")
    def page() -> str:
        return "for everyone"

    app.add_url_rule("/outside", "outside", lambda: "nobody said who may see this")
    app.register_api(guarded)
    app.register_blueprint(pages)
    return app


@pytest.fixture
def http(app: OpenAPI) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def held(app: OpenAPI) -> Callable[[], tuple[float, int]]:
    """Requests in progress by the gauge, and open requests of the key."""
    parts = services_of(app)
    gauge = parts.metrics.in_progress

    def read() -> tuple[float, int]:
        (sample,) = next(iter(gauge.collect())).samples
        return sample.value, parts.open_requests._open["ann"]

    return read


def test_a_stream_is_held_until_its_end(http: FlaskClient, held: Callable[[], tuple[float, int]]) -> None:
    response = http.get("/v1/stream", headers=KEY, buffered=False)
    pieces = response.iter_encoded()
    assert next(pieces) == b"one "
    assert held() == (1, 1)
    assert list(pieces) == [b"two ", b"three"]
    response.close()
    assert held() == (0, 0)


def test_a_stream_whose_client_goes_away_is_released(http: FlaskClient, held: Callable[[], tuple[float, int]]) -> None:
    response = http.get("/v1/stream", headers=KEY, buffered=False)
    assert held() == (1, 1)
    response.close()
    assert held() == (0, 0)


def test_a_stream_that_breaks_is_released(http: FlaskClient, held: Callable[[], tuple[float, int]]) -> None:
    response = http.get("/v1/broken", headers=KEY, buffered=False)
    with pytest.raises(ZeroDivisionError):
        list(response.iter_encoded())
    response.close()
    assert held() == (0, 0)


def test_a_plain_response_is_released_and_head_has_no_body(
    http: FlaskClient, held: Callable[[], tuple[float, int]]
) -> None:
    assert http.get("/v1/queues", headers=KEY).status_code == 200
    answer = http.head("/v1/queues", headers=KEY)
    assert (answer.status_code, answer.data) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0
    assert held() == (0, 0)


def test_an_application_that_raises_at_once_is_released() -> None:
    released = []

    def broken(environ: object, start_response: object) -> list[bytes]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        until_closed(broken, {}, lambda *_: print, lambda: released.append(1))
    assert released == [1]


class BodyWhoseCloseFails(list):
    def close(self) -> None:
        raise RuntimeError("cannot cancel the job")


def test_a_body_whose_close_fails_is_released() -> None:
    released = []
    body = until_closed(lambda *_: BodyWhoseCloseFails(), {}, lambda *_: print, lambda: released.append(1))
    with pytest.raises(RuntimeError):
        body.close()
    assert released == [1]


def test_a_response_that_is_closed_twice_is_released_once() -> None:
    released = []
    body = until_closed(lambda *_: [b"x"], {}, lambda *_: print, lambda: released.append(1))
    body.close()
    body.close()
    assert released == [1]


def test_the_lines_of_a_stream_carry_its_request_id(
    http: FlaskClient, app: OpenAPI, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("api", services_of(app).settings)
        response = http.get("/v1/logging", headers=KEY | {"X-Request-ID": "r1"}, buffered=False)
        list(response.iter_encoded())
        response.close()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        logs.begin()
    assert "stream: last piece request_id=r1" in capsys.readouterr().err


def test_a_new_blueprint_is_guarded_unless_it_says_otherwise(http: FlaskClient) -> None:
    assert http.get("/v1/stream").status_code == 401
    assert http.get("/v1/stream", headers=KEY).text == "one two three"
    assert http.get("/open").text == "for everyone"
    assert [http.get(path).status_code for path in ("/livez", "/", "/docs", "/openapi.json")] == [200] * 4


def test_every_route_but_these_needs_a_key(http: FlaskClient, app: OpenAPI) -> None:
    statuses = {
        (method, rule.rule): http.open(rule.rule.replace("<id>", "x"), method=method).status_code
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if not rule.rule.startswith("/swagger/")
    }
    assert {path for (_, path), status in statuses.items() if status != 401} == OPEN
    assert statuses["GET", "/outside"] == 401


def test_every_module_of_views_is_registered(app: OpenAPI) -> None:
    names = [module.name for module in pkgutil.walk_packages(views.__path__, "api.views.") if not module.ispkg]
    modules = [importlib.import_module(name) for name in names]
    found = [module.blueprint.name for module in modules if hasattr(module, "blueprint")]
    assert {module.__name__ for module in modules if not hasattr(module, "blueprint")} == {
        "api.views.openai.foreground"
    }
    assert len(set(found)) == len(found)
    assert set(found) <= set(app.blueprints)


def test_what_no_view_answers_tells_strangers_nothing(http: FlaskClient) -> None:
    assert http.get("/v1/nothing/of/the/kind").status_code == 401
    assert http.get("/v1/nothing/of/the/kind", headers=KEY).status_code == 404
    assert http.get("/elsewhere").status_code == 404
    assert http.delete("/v1/stream").status_code == 401
    assert http.delete("/v1/stream", headers=KEY).status_code == 405


def test_refused_submits_are_counted_by_the_views_mark(http: FlaskClient, app: OpenAPI) -> None:
    rejected = services_of(app).metrics.rejected.labels("invalid_request")
    for path, count in (("/v1/other", 0), ("/v1/submit", 1), ("/v1/submit-in-other-order", 2)):
        assert http.post(path, headers=KEY).status_code == 422
        assert rejected._value.get() == count
