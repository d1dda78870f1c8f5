"""Real threads beside the one in which all requests are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

Value = TypeVar("Value")


def in_thread(action: Callable[[], Value]) -> Value:
    """Call it in a thread of its own, while other requests go on here."""
    value: Value = gevent.get_hub().threadpool.apply(action)
    return value
