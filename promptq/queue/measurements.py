"""What the scaler has measured of each model, kept for the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from promptq.contract.keys import Keys
from promptq.queue.connection import answering

LIFETIME_SECONDS = 30 * 86_400


def keep(client: redis.Redis, keys: Keys, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Write the measurements of each model."""
    with answering(), client.pipeline(transaction=False) as pipe:
        for model, values in measured.items():
            pipe.hset(keys.measured(model), mapping={name: f"{value:.6g}" for name, value in values.items()})
            pipe.expire(keys.measured(model), LIFETIME_SECONDS)
        pipe.execute()


def recall(client: redis.Redis, keys: Keys, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """The measurements of these models; none of one that has none. What is no number is passed over."""
    with answering(), client.pipeline(transaction=False) as pipe:
        for model in models:
            pipe.hgetall(keys.measured(model))
        replies: list[Any] = pipe.execute()
    return {model: _numbers(fields) for model, fields in zip(models, replies, strict=True) if fields}


def _numbers(fields: Mapping[bytes, bytes]) -> dict[str, float]:
    found = {}
    for name, value in fields.items():
        try:
            found[name.decode()] = max(0.0, float(value))
        except ValueError:
            continue
    return found
