"""Real servers behind TLS, on a Unix socket, with users and databases: reached, or refused in words that help."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.queue.connection import answering, connect, without_retries
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.server_check import check_at_start
from tests.fakes import keys
from tests.integration.apis import running
from tests.processes import worker
from tests.tls import Certificates, TlsFront

PASSWORD = "p@ss/w:rd?#%25&=+ [é]\"',\\"
USER = "us@r:1"


@dataclass
class Place:
    """A server that asks for a user's password, and the ways to it."""

    socket: Path
    tls_port: int
    elsewhere_port: int
    certificates: Certificates

    def tls(self, port: int | None = None, host: str = "127.0.0.1", secret: str = PASSWORD, **files: str) -> str:
        user = f"{quote(USER, safe='')}:{quote(secret, safe='')}"
        return f"rediss://{user}@{host}:{port or self.tls_port}/3?{self.certificates.query(**files)}"

    @property
    def unix(self) -> str:
        return f"unix://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@{self.socket}?db=3"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="promptq"))  # pytest's own are too long for the name of a socket
    certificates = Certificates(folder / "certificates")
    server = EmbeddedServer(folder / "server", options=("--unixsocket", str(folder / "socket"))).start()
    with connect(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", "off")
        fronts = [TlsFront(server.port, certificates, name) for name in ("server", "elsewhere")]
        yield Place(folder / "socket", fronts[0].port, fronts[1].port, certificates)
    for front in fronts:
        front.close()
    server.stop(kill=True)
    shutil.rmtree(folder)


def refusal(url: str) -> str:
    with connect(url) as client, answering():
        client.ping()
    raise AssertionError("it answers")


def test_every_way_leads_to_the_same_database(place: Place) -> None:
    ways = [place.tls(), place.tls(host="localhost"), place.unix, place.unix.replace("?db=3", "?db=4")]
    clients = [connect(url) for url in ways] + [without_retries(connect(place.tls()))]
    clients[0].set("key", "value")
    assert [client.get("key") for client in clients] == [b"value", b"value", b"value", None, b"value"]
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"ca": "other-ca"}, "certificate is not accepted: .*name the file of its CA: ssl_ca_certs="),
        ({"port": "elsewhere"}, "certificate is not accepted: IP address mismatch"),
        ({"client": ""}, "asks for a client certificate"),
        ({"client": "other-client"}, "does not know the CA of our client certificate"),
        ({"secret": "s3cret"}, "user or the password is missing or wrong"),
    ],
)
def test_a_connection_that_cannot_be_made_says_why(place: Place, way: dict[str, Any], words: str) -> None:
    url = place.tls(**way | ({"port": place.elsewhere_port} if "port" in way else {}))
    with pytest.raises(RedisUnavailable, match=words) as caught:
        refusal(url)
    assert not {"s3cret", PASSWORD, quote(PASSWORD, safe="")} & set(caught.value.message.split())


def test_a_start_says_it_and_no_secret(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    check_at_start(connect(place.tls(ca="other-ca")), keys)
    check_at_start(connect(place.tls(secret="s3cret")), keys)
    check_at_start(connect(place.tls() + "&ssl_cert_reqs=none"), keys)
    assert "certificate is not accepted" in caplog.messages[0]
    assert "password is missing or wrong" in caplog.messages[1]
    assert "whoever is between" in caplog.messages[2]
    assert len(caplog.messages) == 3
    assert not any(secret in caplog.text for secret in ("s3cret", "p@ss", "p%40ss"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ssl_ca_certs=/nowhere", "ssl_ca_certs: /nowhere: no such file"),
        ("ssl_ca_certs={folder}/empty", "ssl_ca_certs: .*/empty: no PEM"),
        ("ssl_ca_path=/nowhere", "ssl_ca_path: /nowhere is no folder"),
        ("ssl_keyfile={folder}/client.key", "ssl_keyfile: name its certificate"),
        ("ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/server.key", "ssl_certfile: .*key does not fit"),
        ("ssl_cert_reqs=perhaps", "perhaps"),
        ("socket_keepalive=perhaps&db=x", "Invalid value for 'db'"),
    ],
)
def test_files_and_values_are_looked_at_before_the_first_connection(place: Place, query: str, words: str) -> None:
    folder = place.certificates.folder
    (folder / "empty").touch()
    with pytest.raises(SettingsError, match=f"PROMPTQ_REDIS_URL: .*{words}"):
        connect(f"rediss://host/0?{query.format(folder=folder)}")


def test_options_of_tls_are_for_tls(place: Place) -> None:
    with pytest.raises(SettingsError, match=r"unknown option 'ssl_ca_certs'; it is for rediss://"):
        connect(f"redis://host/0?{place.certificates.query(client='')}")


def test_an_api_over_tls_and_a_worker_on_the_socket_serve_one_queue(place: Place, tmp_path: Path) -> None:
    over_tls: Any = SimpleNamespace(url=place.tls())
    on_socket: Any = SimpleNamespace(url=place.unix)
    with running(over_tls, tmp_path, 1) as api, worker(on_socket, echo_tokens_per_second=0):
        answer = api.call("POST", "/v1/jobs", json={"prompt": "one two"}, headers={"Prefer": "wait=60"})
        assert (answer.status_code, answer.json()["output"]["text"]) == (200, "one two")
