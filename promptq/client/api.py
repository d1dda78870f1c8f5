"""The few calls of the API that the command line makes, with the standard library alone."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from promptq.contract.errors import PromptqError

CHUNK_BYTES = 256 * 1024
TIMEOUT_SECONDS = 300.0


class CallFailed(PromptqError):
    """The API refuses, or does not answer.

    Attributes:
        status: of the answer; 0 where there is none.
    """

    type = "call_failed"

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A running API.

    Args:
        key: an API key; empty: none.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # An http_proxy is not for a service of one's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """A call with JSON in and out.

        Raises:
            CallFailed: it has no 2xx.
        """
        data = None if body is None else json.dumps(body).encode()
        with self._open(method, path, data, {"Content-Type": "application/json"} | headers) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload a file for a batch; it is never whole in memory.

        Raises:
            CallFailed: it was refused.
            OSError: it cannot be read.
        """
        mark = secrets.token_hex(16)
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{mark}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{json.dumps(path.name)[1:-1]}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{mark}--\r\n".encode()
        with path.open("rb") as file:
            size = len(head) + os.fstat(file.fileno()).st_size + len(tail)
            headers = {"Content-Type": f"multipart/form-data; boundary={mark}", "Content-Length": str(size)}
            with self._open("POST", "/v1/files", _chunks(head, file, tail), headers) as answer:
                found: dict[str, Any] = json.load(answer)
        return found

    def download(self, file_id: str, target: Path) -> None:
        """Write a file's bytes to `target`, whole or not at all.

        Raises:
            CallFailed: there is no such file.
            OSError: it cannot be written.
        """
        beside = target.with_name(target.name + ".part")
        with self._open("GET", f"/v1/files/{file_id}/content", None, {}) as answer, beside.open("wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
        beside.replace(target)

    def _open(self, method: str, path: str, data: Any, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self._url + path, data, self._headers | headers, method=method)
        try:
            return self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            raise CallFailed(_said(error), error.code) from None
        except OSError as error:
            raise CallFailed(f"{self._url} does not answer: {error}") from None


def _chunks(head: bytes, file: IO[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
    yield tail


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{error.code} {error.reason}"
