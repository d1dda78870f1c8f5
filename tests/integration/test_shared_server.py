"""Two deployments on one server, each with a prefix, and with a user that has the rights in docs/security.md alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from promptq.contract.keys import Keys
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.server_check import examine
from promptq.queue.store import connect
from tests.integration.workload import PATIENCE, Client, deployed, use_everything
from tests.processes import ROOT, wait_until


def narrow_user(admin: redis.Redis, name: str, prefix: str) -> None:
    """The user of the documentation, with the prefix where it says that it belongs."""
    rule = (ROOT / "docs/security.md").read_text().partition("ACL SETUSER")[2].partition("```")[0]
    words = [word if word[0] not in "~&" else f"{word[0]}{prefix}{word[1:]}" for word in rule.split()[1:]]
    admin.execute_command("ACL", "SETUSER", name, *(">secret" if word == ">PASSWORD" else word for word in words))


@contextmanager
def commands_of(client: redis.Redis) -> Iterator[list[str]]:
    """What the server is asked meanwhile, by scripts too; not their texts, which have the name of every key."""
    seen: list[str] = []
    with client.monitor() as monitor:

        def read() -> None:
            for entry in monitor.listen():
                if entry["command"] == "ECHO over":
                    return
                if not entry["command"].startswith(("SCRIPT", "EVAL ")):
                    seen.append(entry["command"])

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield seen
        finally:
            client.echo("over")
            reader.join(PATIENCE)


FORBIDDEN = (
    "CLIENT KILL TYPE normal", "CLIENT LIST", "SCRIPT FLUSH", "CONFIG GET *", "FLUSHALL", "KEYS *", "ACL LIST",
    "MONITOR", "GET rq:job:1", "SET two:rq:job:1 x", "PUBLISH promptq:0:done x",
)  # fmt: skip


def test_the_user_of_the_documentation_may_do_nothing_else(own_server: EmbeddedServer) -> None:
    with connect(own_server.url) as admin:
        narrow_user(admin, "one", "one:")
    with connect(own_server.url.replace("//", "//one:secret@")) as client:
        assert examine(client, Keys("one:")) == []
        for words in FORBIDDEN:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words.split())


def test_two_deployments_with_a_prefix_each_share_a_server(own_server: EmbeddedServer, tmp_path: Path) -> None:
    urls = {name: own_server.url.replace("//", f"//{name}:secret@") for name in ("one", "two")}
    with connect(own_server.url) as admin:
        for name in urls:
            narrow_user(admin, name, f"{name}:")
        with deployed(urls["two"], tmp_path / "two", with_dispatcher=False, key_prefix="two:") as second:
            other = Client(second, "ann")
            kept = other.submit("one two three")["id"]
            with deployed(urls["one"], tmp_path / "one", key_prefix="one:") as first, commands_of(admin) as seen:
                use_everything(first, tmp_path)
                measured = Keys("one:").measured
                wait_until(lambda: list(admin.scan_iter(f"{measured.start}*")), PATIENCE, "what the scaler measured")
            mine = [key for key in admin.scan_iter(count=1000) if key.startswith(b"one:")]
            assert {key.partition(b":")[0] for key in admin.scan_iter(count=1000)} == {b"one", b"two"}
            # Whoever touched a key or a channel without the prefix, or called what the documentation has not: this
            # server said no.
            assert admin.acl_log() == []
            text = "\n".join(seen)
            untouched = {name for name, key in Keys("one:").catalogue().items() if key.start not in text}
            assert not untouched, "the work has no use for keys of these kinds: give it some"
            admin.unlink(*mine)
            assert other("GET", f"/v1/jobs/{kept}")["output"]["text"] == "one two three"
            assert other.submit("four five", cache=False)["status"] == "succeeded"
            wait_until(lambda: second.call("GET", "/readyz").ok, PATIENCE, "readiness")
