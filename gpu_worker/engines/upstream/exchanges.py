"""One request and its answer: a stream of text, or a whole embedding."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

import httpx2
from pydantic_core import to_json

from gpu_worker.engines.upstream import embedding_answer
from gpu_worker.engines.upstream.chunks import ChunkReader, Finish, Piece
from gpu_worker.engines.upstream.failures import Failure, Kind, StreamFault, of_status, retry_after
from gpu_worker.engines.upstream.request_body import Wire

DONE: Final = "[DONE]"
MAX_EVENT_BYTES: Final = 4 * 2**20
MAX_ANSWER_BYTES: Final = 4 * 2**20
MAX_ERROR_BYTES: Final = 64 * 2**10
LAST_WORDS_SECONDS: Final = 5.0
"""After a text's end: for the count of its tokens, and the end of the stream."""
STREAM: Final = "text/event-stream"
JSON: Final = "application/json"

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


@dataclass(slots=True)
class Exchange(ABC):
    """One request and its answer.

    Args:
        tell: takes the news.

    Attributes:
        has_begun: some of what was asked for has come; from then on a failure means that it broke off.
        is_over: the last news was told.
    """

    request: Request
    client: httpx2.AsyncClient
    tell: Callable[[News], None]
    has_begun: bool = False
    is_over: bool = False

    async def carry(self) -> None:
        """Send the request and tell all that comes of it, to its end."""
        try:
            await self._read()
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
        self._end(failure)

    def fail(self, failure: Failure) -> None:
        """Tell of a failure, unless the end was told; behind a beginning the answer has broken off."""
        if self.is_over:
            return
        self.is_over = True
        is_broken = self.has_begun and failure.kind is not Kind.REQUEST
        self.tell(Failure(Kind.LOST, failure.message) if is_broken else failure)

    @abstractmethod
    async def _read(self) -> None:
        """Send the request and tell what its answer says."""

    def _end(self, failure: Failure) -> None:
        """Nothing more comes. The failure says what that means, unless the end was told."""
        self.fail(failure)

    def _finish(self, finish: Finish) -> None:
        if not self.is_over:
            self.is_over = True
            self.tell(finish)

    def _post(self) -> AbstractAsyncContextManager[httpx2.Response]:
        body, headers = to_json(self.request.wire.body), {"Content-Type": JSON}
        return self.client.stream("POST", self.request.wire.path, content=body, headers=headers)


@dataclass(slots=True)
class TextExchange(Exchange):
    """A request whose text comes as a stream."""

    reader: ChunkReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = ChunkReader(self.request.top)

    async def _read(self) -> None:
        async with asyncio.timeout(None) as limit, self._post() as response:
            await _check(response, STREAM)
            async for event in httpx2.EventSource(response, MAX_EVENT_BYTES):
                self._take(event.data)
                if self.reader.is_finished and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)

    def _take(self, data: str) -> None:
        # What is behind the end is read too, so that the connection can be used again.
        if self.is_over:
            return
        if data == DONE and self.reader.is_finished:
            self._finish(self.reader.finish())
        elif data and data != DONE and (piece := self.reader.read(data)):
            self.has_begun = True
            self.tell(piece)

    def _end(self, failure: Failure) -> None:
        """A text of which the server has said why it ends has ended, whatever happened then."""
        if self.reader.is_finished:
            self._finish(self.reader.finish())
        else:
            self.fail(failure)


@dataclass(slots=True)
class EmbeddingExchange(Exchange):
    """A request whose answer is one embedding, and comes whole."""

    async def _read(self) -> None:
        async with self._post() as response:
            await _check(response, JSON)
            body = await self._body(response)
        # A whole answer did not break off: one that makes no sense is no loss, but a failure.
        self.has_begun = False
        self._finish(embedding_answer.read(body))

    async def _body(self, response: httpx2.Response) -> bytes:
        body = b""
        async for part in response.aiter_bytes():
            body += part
            self.has_begun = bool(body)
            if len(body) > MAX_ANSWER_BYTES:
                raise StreamFault(Failure(Kind.FAILED, f"the answer is longer than {MAX_ANSWER_BYTES} bytes"))
        return body


def exchange(request: Request, client: httpx2.AsyncClient, tell: Callable[[News], None]) -> Exchange:
    """The exchange that reads what this request is answered with."""
    kind = EmbeddingExchange if request.wire.is_embedding else TextExchange
    return kind(request, client, tell)


async def _check(response: httpx2.Response, expected: str) -> None:
    """Let an answer through that is what was asked for.

    Args:
        expected: its type.

    Raises:
        StreamFault: it is not.
    """
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status_code != httpx2.codes.OK:
        seconds = retry_after(response.headers.get("Retry-After"), response.headers.get("retry-after-ms"))
        raise StreamFault(of_status(response.status_code, await _beginning(response), seconds))
    if kind != expected:
        asked = "a stream" if expected == STREAM else "an embedding"
        raise StreamFault(Failure(Kind.REFUSED, f"the server answers with {kind or 'no type'} to a request of {asked}"))


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
