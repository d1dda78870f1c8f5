"""How the embedded server is started, and how the benchmark's deep queue is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.queue import settle
from benchmarks.queue_server import serving
from promptq.queue import embedded
from tests.fakes import keys


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Starts a server and tells its environment: a script in its place looks, as the server's title overwrites it."""
    script, seen, binary = tmp_path / "server", tmp_path / "seen", embedded.find_binary()
    script.write_text(f'#!/bin/sh\nenv >{seen}\nexec {binary} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(embedded, "find_binary", lambda: script)
    monkeypatch.delenv("LD_PRELOAD", raising=False)

    def start() -> dict[str, str]:
        embedded.EmbeddedServer(tmp_path / "data").start().stop()
        return dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)

    return start


def test_its_allocator_keeps_free_memory_at_hand_by_size(environment: Callable[[], dict[str, str]]) -> None:
    """Only the benchmark shows the effect: `python -m benchmarks.queue --parts depth`."""
    assert environment()["GLIBC_TUNABLES"] == embedded.ALLOCATOR


def test_it_runs_on_jemalloc_where_that_is_installed(tmp_path: Path) -> None:
    if (library := embedded.find_allocator()) is None:
        pytest.skip("no jemalloc on this machine")
    server = embedded.EmbeddedServer(tmp_path).start()
    try:
        assert server.process is not None
        assert library in Path(f"/proc/{server.process.pid}/maps").read_text()
    finally:
        server.stop()


def test_without_jemalloc_nothing_is_preloaded(
    environment: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_allocator", lambda: None)
    assert "LD_PRELOAD" not in environment()


def test_what_the_operator_preloads_comes_first(
    environment: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_allocator", lambda: "libm.so.6")
    monkeypatch.setenv("LD_PRELOAD", "libdl.so.2")
    assert environment()["LD_PRELOAD"] == "libdl.so.2 libm.so.6"


def test_compose_gives_its_server_the_same_lean_options() -> None:
    command = " ".join(re.findall(r"[\w-]+", Path("docker-compose.yml").read_text().replace('"', "")))
    for name, value in zip(embedded.LEAN_OPTIONS[::2], embedded.LEAN_OPTIONS[1::2], strict=True):
        assert f"{name} {value}" in command


def test_the_benchmark_fills_its_queue_with_jobs_like_those_it_measures() -> None:
    with serving() as client:
        settle(client, 2000)  # more than its own unmeasured turn takes and replaces
        assert client.hlen(keys.groups()) == 2000
        assert client.llen(keys.queue("default")) == 2000


def test_a_free_port_is_none_that_an_outgoing_connection_may_take() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(embedded.free_port() < first_outgoing for _ in range(50))
