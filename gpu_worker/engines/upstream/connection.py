"""Requests to the server, on an event loop on a thread of its own; what comes back goes into a queue."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx2
from pydantic_core import to_json

from gpu_worker.engines.upstream.chunks import ChunkReader, Finish, Piece
from gpu_worker.engines.upstream.failures import Failure, Kind, StreamFault, of_status, retry_after
from gpu_worker.engines.upstream.request_body import Wire
from promptq.contract.errors import EngineBroken

log = logging.getLogger(__name__)

DONE: Final = "[DONE]"
MAX_EVENT_BYTES: Final = 4 * 2**20
MAX_ERROR_BYTES: Final = 64 * 2**10
LAST_WORDS_SECONDS: Final = 5.0
"""After a text's end: for the count of its tokens, and the end of the stream."""
KEEP_ALIVE_SECONDS: Final = 2.0
"""An idle connection is closed then: before servers do, which would break the request that is sent meanwhile."""
CLOSE_SECONDS: Final = 5.0

News = Piece | Finish | Failure
"""What came of a request. Nothing comes after a Finish or a Failure."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that is to be sent.

    Attributes:
        number: what its news are known by.
        top: how many of the likeliest tokens it asks for.
    """

    number: int
    wire: Wire
    top: int = 0


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
        exchange = _Exchange(request, self._client, lambda news: self.news.put((request.number, news)))
        try:
            await exchange.carry()
        except Exception as error:
            log.exception("A request to the upstream server failed.")
            exchange.fail(Failure(Kind.FAILED, f"{type(error).__name__}: {error}"))


@dataclass(slots=True)
class _Exchange:
    """One request and its answer."""

    request: Request
    client: httpx2.AsyncClient
    tell: Callable[[News], None]
    has_begun: bool = False
    is_over: bool = False

    async def carry(self) -> None:
        """Send the request and tell all that comes of it, to its end."""
        reader = ChunkReader(self.request.top)
        try:
            await self._stream(reader)
        except StreamFault as fault:
            failure = fault.failure
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            failure = Failure(Kind.REFUSED, _said(error))
        except httpx2.ReadTimeout:
            failure = Failure(Kind.LOST, "nothing came for longer than read_timeout_seconds")
        except (httpx2.RequestError, TimeoutError) as error:
            failure = Failure(Kind.FAILED, _said(error))
        else:
            failure = Failure(Kind.FAILED, "the stream ended before the text did")
        self._end(reader, failure)

    def fail(self, failure: Failure) -> None:
        """Tell of a failure, unless the end was told; behind the first piece the text has broken off."""
        if self.is_over:
            return
        self.is_over = True
        is_broken = self.has_begun and failure.kind is not Kind.REQUEST
        self.tell(Failure(Kind.LOST, failure.message) if is_broken else failure)

    def _end(self, reader: ChunkReader, failure: Failure) -> None:
        """A text of which the server has said why it ends has ended, whatever happened then."""
        if reader.is_finished:
            self._finish(reader)
        else:
            self.fail(failure)

    def _finish(self, reader: ChunkReader) -> None:
        if not self.is_over:
            self.is_over = True
            self.tell(reader.finish())

    async def _stream(self, reader: ChunkReader) -> None:
        body, headers = to_json(self.request.wire.body), {"Content-Type": "application/json"}
        wire = self.client.stream("POST", self.request.wire.path, content=body, headers=headers)
        async with asyncio.timeout(None) as limit, wire as response:
            if failure := await _refusal(response):
                raise StreamFault(failure)
            async for event in httpx2.EventSource(response, MAX_EVENT_BYTES):
                self._take(event.data, reader)
                if reader.is_finished and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)

    def _take(self, data: str, reader: ChunkReader) -> None:
        # What is behind the end is read too, so that the connection can be used again.
        if self.is_over:
            return
        if data == DONE and reader.is_finished:
            self._finish(reader)
        elif data and data != DONE and (piece := reader.read(data)):
            self.has_begun = True
            self.tell(piece)


async def _refusal(response: httpx2.Response) -> Failure | None:
    """Why an answer is no stream; None: it is one."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status_code == httpx2.codes.OK and kind == "text/event-stream":
        return None
    if response.status_code == httpx2.codes.OK:
        return Failure(Kind.REFUSED, f"the server answers with {kind or 'no type'} where a stream was asked for")
    seconds = retry_after(response.headers.get("Retry-After"), response.headers.get("retry-after-ms"))
    return of_status(response.status_code, await _beginning(response), seconds)


async def _beginning(response: httpx2.Response) -> bytes:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) >= MAX_ERROR_BYTES:
            break
    return body[:MAX_ERROR_BYTES]


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    return f"{text} ({cause})" if cause and str(cause) not in ("", text) and len(str(cause)) < 100 else text
