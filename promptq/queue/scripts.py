"""The Lua scripts: one is one transition, and runs as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import redis

from promptq.contract.keys import Keys, lua_prelude, usage_prelude
from promptq.queue.connection import answering

_CHANGES = ("base", "jobs", "lifetime", "usage", "totals", "outbox", "transition", "groups")
PARTS: Final[Mapping[str, Sequence[str]]] = {
    "submit": (*_CHANGES, "waking", "fair", "fair_place", "bound", "cache", "admission"),
    "claim": (*_CHANGES, "waking", "expiry", "rq_features", "progress", "candidate", "lines"),
    "pass_on": ("base", "waking"),
    "renew": ("base",),
    "append": ("base",),
    "follow": _CHANGES,
    "finish": (*_CHANGES, "cache"),
    "release": _CHANGES,
    "reap": (*_CHANGES, "led_groups", "redelivery", "expiry"),
    "reap_rq": _CHANGES,
    "reconcile": (*_CHANGES, "led_groups"),
    "take_back": (*_CHANGES, "redelivery"),
    "redeliver": (*_CHANGES, "redelivery"),
    "cancel": _CHANGES,
    "retry": ("base", "jobs", "outbox", "fair", "fair_place", "bound", "progress"),
    "read": ("base",),
    "delete": ("base", "jobs"),
    "register": ("base",),
    "unregister": ("base",),
    "drain": ("base",),
    "lease": ("base",),
    "file_put": ("base",),
    "file_drop": ("base",),
    "batch_create": ("base",),
    "batch_commit": ("base", "fence"),
    "batch_move": ("base", "fence", "outbox"),
    "batch_reopen": ("base", "fence"),
    "batch_cancel": ("base",),
    "batch_retry": ("base",),
    "webhook_put": ("base",),
    "webhook_drop": ("base",),
    "webhook_rotate": ("base",),
    "webhook_secret": ("base",),
    "deliver": ("base",),
    "delivery_end": ("base",),
    "redeliver_event": ("base",),
}
"""Every script, and what is put before it."""

JOBS_PER_SCRIPT: Final = 100
"""So few that one script does not keep Redis from its other clients for long."""
NO_MODEL: Final = usage_prelude("", 90)
"""Where it does not matter whose the usage is."""
Call = tuple[str, Sequence[Any]]
"""A script's name, and its ARGV without the time, which comes first."""


class Scripts:
    """The scripts of one deployment, on one client.

    Args:
        clock: for tests: gives the time of each script, in seconds since the epoch, in place of the server's clock.
        usage: what `usage_prelude` gives.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, clock: Callable[[], float | None] = lambda: None, usage: str = NO_MODEL
    ) -> None:
        self.client = client
        self._clock = clock
        self._scripts = {name: client.register_script(source(name, keys, usage)) for name in PARTS}

    def run(self, name: str, arguments: Sequence[Any]) -> Any:
        """Run one script, in one round trip."""
        with answering():
            return self._scripts[name](args=[self._time(), *arguments])

    def run_together(self, calls: Sequence[Call]) -> list[Any]:
        """Scripts one after the other in one round trip; others may come in between, as between two calls."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for name, arguments in calls:
                pipe.evalsha(self._scripts[name].sha, 0, self._time(), *arguments)
            replies = pipe.execute(raise_on_error=False)
        # Of what was refused, for a forgotten script or a server that may not write, nothing was done: once more alone.
        refused = [isinstance(reply, redis.RedisError) for reply in replies]
        rows = zip(calls, replies, refused, strict=True)
        return [self.run(*call) if again else reply for call, reply, again in rows]

    def _time(self) -> float | str:
        """What a script goes by: empty for the server's own clock."""
        given = self._clock()
        return "" if given is None else given


def source(name: str, keys: Keys, usage: str = NO_MODEL) -> str:
    """A script as it is sent: the names of the keys, its parts, and itself."""
    prelude = lua_prelude(keys) + (usage if "usage" in PARTS[name] else "")
    folder = resources.files("promptq.queue") / "lua"
    return prelude + "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*PARTS[name], name))
