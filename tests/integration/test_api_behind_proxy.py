"""The API behind a proxy that speaks TLS: what browsers send through it, with Host as nginx and Caddy pass it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import Api, running

PUBLIC = "promptq.example.org"
ORIGIN = f"https://{PUBLIC}"


@pytest.fixture(scope="module", params=["on loopback", "open"])
def api(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    is_open = str(request.param == "open").lower()
    with running(server, tmp_path_factory.mktemp("api"), 1, public_origin=ORIGIN, allow_open_bind=is_open) as api:
        yield api


def submitted(api: Api, **headers: str) -> tuple[int, str]:
    answer = api.submit(**{"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", **headers})
    return answer.status_code, (answer.json()["error"] or {}).get("param", "")


@pytest.mark.parametrize("proto", ["https", "http", ""])
@pytest.mark.parametrize("host", [PUBLIC, f"{PUBLIC}:443", "127.0.0.1:8000", "localhost"])
def test_the_page_submits_through_the_proxy(api: Api, host: str, proto: str) -> None:
    headers = {"X-Forwarded-Proto": proto} if proto else {}
    assert submitted(api, Host=host, Origin=ORIGIN, **headers) == (202, "")


def test_programs_come_through_it_too(api: Api) -> None:
    assert submitted(api, Host=PUBLIC) == (202, "")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"http://{PUBLIC}:8000", "null", f"{ORIGIN}.evil.example", ""]
)
def test_other_sites_are_refused_whatever_they_say_of_themselves(api: Api, origin: str) -> None:
    forged = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example;proto=https"}
    assert submitted(api, Host=PUBLIC, Origin=origin, **forged) == (403, "Origin")


def test_without_the_setting_the_proxys_name_is_a_foreign_one(server: EmbeddedServer, tmp_path: Path) -> None:
    with running(server, tmp_path, 1) as closed:
        assert submitted(closed, Host=PUBLIC, Origin=ORIGIN) == (403, "Host")
        assert submitted(closed, Host="127.0.0.1", Origin=ORIGIN) == (403, "Origin")


def test_a_name_that_was_pointed_at_us_is_refused_on_loopback(server: EmbeddedServer, tmp_path: Path) -> None:
    with running(server, tmp_path, 1, public_origin=ORIGIN) as closed:
        assert submitted(closed, Host="rebound.example:8000") == (403, "Host")
