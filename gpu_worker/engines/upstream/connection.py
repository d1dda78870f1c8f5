"""Requests to the server, on an event loop on a thread of its own; what comes back goes into a queue."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from typing import Final

import httpx2

from gpu_worker.engines.upstream.exchanges import News, Request, exchange
from gpu_worker.engines.upstream.failures import Failure, Kind
from promptq.contract.errors import EngineBroken

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 2.0
"""An idle connection is closed then: before servers do, which would break the request that is sent meanwhile."""
CLOSE_SECONDS: Final = 5.0


class Connection(threading.Thread):
    """Sends requests, all at once, over pooled connections.

    Args:
        client: for this alone: it is closed with it.

    Attributes:
        news: by the number of the request. Only its owner takes from it.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        super().__init__(name="upstream", daemon=True)
        self.news: queue.SimpleQueue[tuple[int, News]] = queue.SimpleQueue()
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    def send(self, request: Request) -> None:
        """Send a request; its news come in their order."""
        self.check()
        self._loop.call_soon_threadsafe(self._begin, request)

    def check(self) -> None:
        """Let nobody wait for a thread that is not there.

        Raises:
            EngineBroken: it has died.
        """
        if not self.is_alive():
            raise EngineBroken("the thread of the upstream connection has died")

    def abort(self, number: int) -> None:
        """Close a request's connection, so that the server stops. What is in the queue stays there."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._cancel, number)

    def close(self) -> None:
        """Close all connections, and end the thread."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._closed.set)
            self.join(CLOSE_SECONDS)

    def run(self) -> None:
        """Serve until closed."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with self._client:
            await self._closed.wait()
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, request: Request) -> None:
        task = self._loop.create_task(self._carry(request))
        self._tasks[request.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.number, None))

    def _cancel(self, number: int) -> None:
        if task := self._tasks.get(number):
            task.cancel()

    async def _carry(self, request: Request) -> None:
        """Send one request, and pass on what comes of it."""
        sent = exchange(request, self._client, lambda news: self.news.put((request.number, news)))
        try:
            await sent.carry()
        except Exception as error:
            log.exception("A request to the upstream server failed.")
            sent.fail(Failure(Kind.FAILED, f"{type(error).__name__}: {error}"))
