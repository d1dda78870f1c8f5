"""What workers know of their model and the API needs: published in Redis by those, read by this.

`key` is the model's, from `Keys.model`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Self

import redis

from promptq.queue.connection import answering

LIFETIME_SECONDS = 86_400
MAX_TOKENIZER_BYTES = 64 * 2**20
"""Half a megabyte may unpack to hundreds: not in the API. The largest vocabularies take about 35 MB."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model, as the worker that beat last runs it.

    Attributes:
        context_length: tokens of a row, prompt and text together.
        sha256: of the tokenizer.
        tokenizer_json: as the library `tokenizers` reads it.
    """

    context_length: int
    sha256: str
    tokenizer_json: str = field(repr=False)

    @classmethod
    def of(cls, context_length: int, tokenizer_json: str) -> Self:
        """The facts of a worker's own model."""
        return cls(context_length, hashlib.sha256(tokenizer_json.encode()).hexdigest(), tokenizer_json)


def announce(pipe: Any, key: str, identity: str, capabilities: Collection[str]) -> None:
    """Add to a pipeline what says which texts in the cache are this model's, which the scripts read, and what its
    engine can do."""
    pipe.hset(key, mapping={"identity": identity, "capabilities": " ".join(capabilities)})
    pipe.expire(key, LIFETIME_SECONDS)


def renew(pipe: Any, key: str, facts: ModelFacts) -> None:
    """Add to a pipeline what keeps the facts alive. Its last reply is the sha of the tokenizer that is published."""
    pipe.hset(key, "context_length", facts.context_length)
    pipe.expire(key, LIFETIME_SECONDS)
    pipe.hget(key, "sha256")


def publish(client: redis.Redis, key: str, facts: ModelFacts) -> None:
    """Publish the facts with the tokenizer, which may be megabytes."""
    packed = zlib.compress(facts.tokenizer_json.encode())
    mapping: Any = {"context_length": facts.context_length, "sha256": facts.sha256, "tokenizer": packed}
    with answering(), client.pipeline() as pipe:
        pipe.hset(key, mapping=mapping)
        pipe.expire(key, LIFETIME_SECONDS)
        pipe.execute()


def read(client: redis.Redis, key: str, known: ModelFacts | None = None) -> ModelFacts | None:
    """The published facts, or None where there are none. The tokenizer is fetched only when it is not the known one."""
    with answering():
        context, sha = _fields(client, key, "context_length", "sha256")
        if known and context and sha == known.sha256.encode():
            return replace(known, context_length=int(context))
        context, sha, packed = _fields(client, key, "context_length", "sha256", "tokenizer") if sha else [None] * 3
    if not (context and sha and packed):
        return None
    return ModelFacts(int(context), sha.decode(), _unpack(packed))


def read_capabilities(client: redis.Redis, key: str) -> frozenset[str] | None:
    """What the engine of the worker that beat last can do, by name; None where no worker has said it."""
    with answering():
        (names,) = _fields(client, key, "capabilities")
    return None if names is None else frozenset(names.decode().split())


def _fields(client: redis.Redis, key: str, *names: str) -> list[bytes | None]:
    found: Any = client.hmget(key, *names)
    return list(found)


def _unpack(packed: bytes) -> str:
    """The tokenizer, or an empty string for what is none: then nobody counts."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_TOKENIZER_BYTES).decode()
    except (zlib.error, UnicodeDecodeError):
        return ""
    return text if unpacker.eof else ""
