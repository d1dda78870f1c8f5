"""Redis as Debian packages it, with TLS of its own, and its Sentinel: where `redis-server` is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from promptq.contract.errors import RedisUnavailable
from promptq.contract.settings import WorkerSettings
from promptq.queue.connection import answering, connect
from promptq.queue.server_check import examine
from promptq.queue.store import JobStore
from tests.fakes import keys, new_job, success
from tests.integration.test_shared_server import narrow_user
from tests.processes import free_port, wait_until
from tests.tls import Certificates

BINARY = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed (apt-get install redis-server)")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "certificates")


def tls_options(certificates: Certificates, port: int) -> list[str]:
    """No port without TLS, and nobody without a certificate of the CA."""
    return [
        "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-replication", "yes",
        "--tls-cert-file", certificates("server"), "--tls-key-file", certificates("server.key"),
        "--tls-ca-cert-file", certificates("ca"), "--tls-auth-clients", "yes",
    ]  # fmt: skip


@contextmanager
def process(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([str(BINARY), *command], cwd=folder, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def answers(url: str) -> bool:
    try:
        with connect(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def work(store: JobStore, job_id: str) -> None:
    """One job from its submit to its end."""
    store.submit(new_job(job_id=job_id, cache=False))
    (claim,) = store.claim("w", 1)
    assert store.finish("w", [success(claim)]) == [True]


def test_tls_of_its_own_and_a_user_with_the_listed_rights(certificates: Certificates, tmp_path: Path) -> None:
    port = free_port()
    base = f"rediss://127.0.0.1:{port}/0?"
    with process(tmp_path / "server", *tls_options(certificates, port), "--appendonly", "yes"):
        wait_until(lambda: answers(base + certificates.query()), 60, "the server")
        with connect(base + certificates.query()) as admin:
            narrow_user(admin, "narrow", "")
            url = base.replace("//", "//narrow:secret@") + certificates.query()
            with connect(url) as client:
                assert examine(client, keys) == []
                work(JobStore(client, WorkerSettings(_env_file=None, redis_url=url)), "job")
            assert [entry for entry in admin.acl_log() if "client|setinfo" not in str(entry)] == []
        for query, words in (
            (certificates.query(ca="other-ca"), "certificate is not accepted"),
            (certificates.query(client=""), "client certificate|reset|[Bb]roken pipe|closed"),
            (certificates.query(client="other-client"), "client certificate|reset|[Bb]roken pipe|closed"),
        ):
            with connect(base + query) as client, pytest.raises(RedisUnavailable, match=words), answering():
                client.ping()


def test_its_sentinels_over_tls_with_passwords(certificates: Certificates, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    sentinel = free_port()
    auth = ("--requirepass", "server secret", "--masterauth", "server secret")
    query = certificates.query()
    follow = ("--replicaof", f"127.0.0.1 {ports[0]}")
    with ExitStack() as held:
        servers = [
            held.enter_context(process(tmp_path / str(port), *tls_options(certificates, port), *auth, *more))
            for port, more in zip(ports, ((), follow), strict=True)
        ]
        lines = " ".join(tls_options(certificates, sentinel)).replace("--", "\n")
        (tmp_path / "sentinel.conf").write_text(
            f"{lines}\nrequirepass sentinel-secret\nsentinel sentinel-pass sentinel-secret\n"
            f"sentinel monitor queue 127.0.0.1 {ports[0]} 1\nsentinel auth-pass queue \"server secret\"\n"
            "sentinel down-after-milliseconds queue 1000\nsentinel failover-timeout queue 2000\n"
        )  # fmt: skip
        held.enter_context(process(tmp_path / "sentinel", str(tmp_path / "sentinel.conf"), "--sentinel"))
        address = f"rediss+sentinel://:server%20secret@127.0.0.1:{sentinel}/0?service=queue&{query}"
        url = f"{address}&sentinel_password=sentinel-secret"
        wait_until(lambda: answers(url), 60, "the Sentinel")
        with connect(address) as client, pytest.raises(RedisUnavailable, match="sentinel_password="), answering():
            client.ping()
        with connect(url) as client:
            store = JobStore(client, WorkerSettings(_env_file=None, redis_url=url))
            work(store, "before")
            wait_until(lambda: client.info("replication").get("connected_slaves"), 60, "the replica")
            assert client.wait(1, 10_000) == 1
            asker = connect(f"rediss://:sentinel-secret@127.0.0.1:{sentinel}?{query}")
            wait_until(lambda: asker.sentinel_master("queue")["num-slaves"] == 1, 60, "the Sentinel's knowledge of it")
            servers[0].kill()
            wait_until(lambda: answers(url), 60, "the new primary")
            work(store, "after")
            assert store.get("before").status == store.get("after").status == "succeeded"
            asker.close()
