"""Streams through nginx as Debian packages it, with its own defaults: each event is passed on as it comes."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.streams import WORDS, Stream, blocks, listen, put
from tests.processes import free_port, wait_until, worker

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{api}; }} }}
}}
"""


@pytest.fixture(scope="module")
def proxied(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API as clients of the proxy reach it."""
    if NGINX is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    with running(server, tmp_path_factory.mktemp("api"), 1) as api:
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, api=api.port))
        nginx = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
        try:
            behind = replace(api, port=port)
            wait_until(behind.lives, 10, "nginx")
            yield behind
        finally:
            nginx.terminate()
            nginx.wait(10)


def test_the_text_comes_word_by_word(proxied: Api, server: EmbeddedServer, store: TimedStore) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=10):
        stream, times = Stream(), []
        for block in blocks(proxied.call("GET", f"/v1/jobs/{job_id}/events", stream=True)):
            stream.add(block)
            times.append(time.monotonic())
    assert stream.text == WORDS
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.02 for gap in gaps) > 15, "held back by the proxy"


def test_a_stream_is_resumed_through_it(proxied: Api, server: EmbeddedServer, store: TimedStore) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=20):
        first = listen(proxied, job_id, until=60)
        assert first.text + listen(proxied, job_id, first.ids[-1]).text == WORDS


def test_a_client_that_leaves_is_noticed_behind_it(proxied: Api, store: TimedStore) -> None:
    stream = proxied.call("GET", f"/v1/jobs/{put(store)}/events", stream=True)
    wait_until(lambda: proxied.open_requests() == 1, 10)
    stream.close()
    wait_until(lambda: proxied.open_requests() == 0, 10, "its place")


def test_a_submit_streams_through_it(proxied: Api, server: EmbeddedServer, tmp_path: Path) -> None:
    with worker(server, echo_tokens_per_second=50):
        body = {"prompt": WORDS, "cache": False}
        stream = Stream()
        stream.add_all(
            blocks(proxied.call("POST", "/v1/jobs", json=body, headers={"Accept": "text/event-stream"}, stream=True))
        )
    assert stream.text == WORDS
