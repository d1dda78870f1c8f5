"""Servers that would lose jobs, or cannot do what is needed: refused or told of in one line, by every program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from api.app import create_app
from promptq.contract.environment import child_environment
from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.contract.exit_codes import ExitCode
from promptq.contract.redis_server import Grade
from promptq.contract.settings import ApiSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import FleetRecord, Observer
from promptq.queue.server_check import examine, look
from promptq.queue.store import connect
from scaler.metrics_server import ServerCollector
from tests.fakes import SETTINGS, keys
from tests.integration.test_redis_refuses import serving, without_rights
from tests.processes import ROOT, free_port
from tests.proxy import Proxy

PROGRAMS = ("api", "gpu_worker", "scaler", "promptq")
EVICTING = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


@contextmanager
def client_of(folder: Path, *options: str) -> Iterator[redis.Redis]:
    with serving(folder, *options) as server, connect(server.url) as client:
        yield client


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


def run(program: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a program, which must end by itself."""
    ports = {f"PROMPTQ_{name}_PORT": str(free_port()) for name in ("API", "SCALER")}
    environment = child_environment(
        PROMPTQ_REDIS_URL=url, PROMPTQ_ENGINE="echo", PROMPTQ_DATA_DIR=str(folder), PYTHONPATH=str(ROOT), **ports
    )
    command = [sys.executable, "-m", program, *(["up"] if program == "promptq" else [])]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def complaints(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said on stderr, without what is logged in good times."""
    return [line for line in ended.stderr.splitlines() if " INFO " not in line]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_server_that_would_throw_jobs_away_is_refused_in_one_line(tmp_path: Path, program: str) -> None:
    with serving(tmp_path / "server", *EVICTING) as server:
        ended = run(program, server.url, tmp_path)
    assert ended.returncode == ExitCode.SETTINGS, ended.stderr
    (line,) = complaints(ended)
    assert "PROMPTQ_REDIS_URL" in line
    assert "allkeys-lru" in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_that_is_too_old_is_refused_in_one_line(proxy: Proxy, tmp_path: Path, program: str) -> None:
    """There is none to be had here, so this one only says that it is."""
    proxy.rewrite = lambda data: data.replace(b"redis_version:7.2.4", b"redis_version:6.0.9")
    ended = run(program, proxy.url, tmp_path)
    assert ended.returncode == ExitCode.SETTINGS, ended.stderr
    (line,) = complaints(ended)
    assert "6.0.9" in line
    assert "6.2" in line


def test_one_that_does_not_know_how_connections_begin_is_too_old(proxy: Proxy) -> None:
    proxy.rewrite = lambda _: b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
    with connect(proxy.url) as client, pytest.raises(SettingsError, match="Redis 5 or older"):
        examine(client, keys)


def test_cluster_mode_is_refused(tmp_path: Path) -> None:
    # By itself it takes its second port from those of outgoing connections, where somebody may be.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with client_of(tmp_path, *options) as client, pytest.raises(SettingsError, match="cluster mode"):
        examine(client, keys)


def test_a_replica_cannot_be_used_now(server: EmbeddedServer, tmp_path: Path) -> None:
    with serving(tmp_path / "replica", "--replicaof", f"127.0.0.1 {server.port}") as replica:
        with connect(replica.url) as client, pytest.raises(RedisUnavailable, match="is a replica"):
            examine(client, keys)
        ended = run("promptq", replica.url, tmp_path)
        assert ended.returncode == ExitCode.REDIS_UNAVAILABLE
        assert len(complaints(ended)) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--appendonly", "no"), "nothing on disk"), (("--appendonly", "no", "--save", "60 1"), "snapshots only"),
        (("--maxmemory-policy", "volatile-lru"), "volatile-lru"),
        (("--maxmemory-policy", "allkeys-lru"), "if maxmemory"),
    ],
)  # fmt: skip
def test_what_may_be_lost_later_is_told(tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    with client_of(tmp_path, *options) as client:
        (warning,) = examine(client, keys)
    assert word in warning


def test_our_own_server_is_as_it_should_be(client: redis.Redis) -> None:
    assert examine(client, keys) == []


def test_a_server_that_hides_its_configuration_is_judged_by_what_it_says(tmp_path: Path) -> None:
    with client_of(tmp_path, "--appendonly", "no") as client:
        client.execute_command("ACL", "SETUSER", "default", "-config")
        (warning,) = examine(client, keys)
        assert "no append-only file" in warning
        client.bgsave()
        client.execute_command("ACL", "SETUSER", "default", "+config")


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("-subscribe", "SUBSCRIBE promptq:0:"), ("-xadd", "XADD rq:job:"), ("-evalsha", "evalsha"), ("-info", "info"),
        ("resetkeys ~promptq:*", "GET rq:job:"), ("resetkeys ~rq:*", "HSET promptq:totals"),
        ("resetchannels &other", "PUBLISH promptq:0:"), ("-@all +@connection", "permissions"),
    ],
)  # fmt: skip
def test_a_right_that_is_missing_is_named(tmp_path: Path, rule: str, word: str) -> None:
    with client_of(tmp_path) as client:
        client.execute_command("ACL", "SETUSER", "default", *rule.split())
        with pytest.raises(RedisUnavailable, match=word):
            examine(client, keys)
        client.ping()  # it may crash when it is asked about rights


def test_readiness_follows_what_the_server_is_like(own_server: EmbeddedServer) -> None:
    http = create_app(ApiSettings(_env_file=None, redis_url=own_server.url, engine="echo")).test_client()
    with connect(own_server.url) as client:
        Observer(client, SETTINGS).publish_fleet(FleetRecord(0, 1, 0))
        assert http.get("/readyz").json == {"status": "ok", "warnings": []}
        client.config_set("maxmemory-policy", "volatile-ttl")
        answer = http.get("/readyz")
        assert answer.status_code == 200
        assert "volatile-ttl" in answer.json["warnings"][0]
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", "1gb")
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json["error"]["type"]) == (503, "not_ready")
        assert "allkeys-random" in answer.text
        client.config_set("maxmemory-policy", "noeviction")
        without_rights(client)
        assert http.get("/readyz").status_code == 503


def test_what_is_wrong_is_counted_while_the_server_answers(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    with client_of(tmp_path, *EVICTING, "--appendonly", "no") as client:
        registry.register(ServerCollector(partial(look, client, keys)))
        counts = [registry.get_sample_value("promptq_redis_troubles", {"grade": grade}) for grade in Grade]
        assert counts == [1, 0, 1]
    assert registry.get_sample_value("promptq_redis_troubles", {"grade": "refused"}) is None


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    ended = run("promptq", f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    assert ended.returncode == ExitCode.REDIS_UNAVAILABLE
    assert len(complaints(ended)) == 1
