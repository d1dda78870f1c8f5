"""Every Redis key: its name, type, fields and lifetime. Nothing else spells a key.

The keys under `rq:` are RQ 3.0's own and keep RQ's meaning. The Lua scripts get these names
through `lua_prelude`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

QUEUES: Final = ("high", "default", "low")
FUNCTION: Final = "promptq.generate"

LEASE_GRACE_SECONDS: Final = 3600
"""Added to a lease in `rq:wip`, whose past entries RQ's own cleanup would fail; our reaper comes long before."""


class Key(NamedTuple):
    """One kind of key.

    Attributes:
        name: the Lua constant, and the name in the docs.
        prefix: the key, or its beginning when `suffix` says what follows.
        lifetime: what ends it; "permanent" only for keys that are bounded in number and size.
    """

    name: str
    prefix: str
    suffix: str
    type: str
    lifetime: str
    holds: str

    def __call__(self, suffix: str = "") -> str:
        return self.prefix + suffix


JOB = Key(
    "JOB", "rq:job:", "{id}", "hash", "none while live; result_ttl or failure_ttl after the end",
    "RQ's fields, and ours: queued_at, attempts, expires_at, timeout_seconds, fingerprint, cache, cache_key, "
    "cancel_requested, error_type, error_message, traceparent, request_id, owner",
)  # fmt: skip
RESULTS = Key(
    "RESULTS", "rq:results:", "{id}", "stream", "as the job; a cached text's at least cache_ttl_seconds",
    "RQ's results; return_value has text, usage and timings",
)  # fmt: skip
QUEUE_NAMES = Key("QUEUE_NAMES", "rq:queues", "", "set", "permanent: three members", "the queues that RQ's tools show")
QUEUE = Key("QUEUE", "rq:queue:", "{queue}", "list", "gone when empty; bounded by max_queue_jobs", "queued ids")
WIP = Key(
    "WIP", "rq:wip:", "{queue}", "sorted set", "gone when empty; reaped",
    "{id}:{execution} of running jobs, scored lease end + grace",
)  # fmt: skip
FINISHED = Key("FINISHED", "rq:finished:", "{queue}", "sorted set", "entries trimmed at their score", "succeeded ids")
FAILED = Key("FAILED", "rq:failed:", "{queue}", "sorted set", "entries trimmed at their score", "failed ids")
CANCELED = Key("CANCELED", "rq:canceled:", "{queue}", "sorted set", "entries trimmed at their score", "cancelled ids")
DEFERRED = Key(
    "DEFERRED", "rq:deferred:", "{queue}", "sorted set", "entries leave with their leader or deadline",
    "ids that joined another job, scored by the time they joined",
)  # fmt: skip
WORKERS = Key("WORKERS", "rq:workers", "", "set", "members leave with their worker", "keys of registered workers")
WORKERS_OF = Key("WORKERS_OF", "rq:workers:", "{queue}", "set", "as rq:workers", "keys of the workers of a queue")
WORKER = Key(
    "WORKER", "rq:worker:", "{name}", "hash", "expires without heartbeats",
    "RQ's fields, and ours: device, dtype, model, slots, busy_slots, phase, metrics_url",
)  # fmt: skip
CACHE_NEW = Key(
    "CACHE_NEW", "promptq:cache:new", "", "hash", "becomes the old one after cache_ttl_seconds, with as long to live",
    "by cache key: the entry of a results stream and, after a space, the id of its job",
)  # fmt: skip
CACHE_OLD = Key("CACHE_OLD", "promptq:cache:old", "", "hash", "cache_ttl_seconds", "as the new one, what came before")
LEADERS = Key(
    "LEADERS", "promptq:leaders", "", "hash", "a field leaves when its leading job ends",
    "by cache key: the id of the live job that has no twin yet, or an empty string: see promptq:join",
)  # fmt: skip
JOIN = Key(
    "JOIN", "promptq:join:", "{sha256}", "list", "deleted when the leading job ends; checked by the reaper",
    "ids of identical live jobs, where there are several, the leading one first",
)  # fmt: skip
IDEMPOTENCY = Key("IDEMPOTENCY", "promptq:idempotency:", "{sha256}", "string", "idempotency_ttl_seconds", "a job id")
EXPIRY = Key(
    "EXPIRY", "promptq:expiry", "", "sorted set", "entries leave with their job",
    "waiting ids that have a ttl_seconds, scored by when they expire",
)  # fmt: skip
TOTALS = Key(
    "TOTALS", "promptq:totals", "", "hash", "permanent: one field a kind",
    "exact counts: submitted, hits, succeeded, failed, cancelled, expired, requeued:{reason}, lease_expiries",
)  # fmt: skip
DRAIN_RATE = Key("DRAIN_RATE", "promptq:drain_rate", "", "string", "60 s", "jobs ended per second, by the scaler")
TURN = Key("TURN", "promptq:turn", "", "string", "600 s", "when the job refused last should come again, wall seconds")
RATE = Key("RATE", "promptq:rate:", "{window}", "string", "two seconds", "requests of an API key, by `limits`")
MODEL = Key(
    "MODEL", "promptq:model:", "{model}", "hash", "a day after its last worker's last heartbeat",
    "context_length, tokenizer (tokenizer.json, zlib) and its sha256, for the API's count of tokens",
)  # fmt: skip
FLEET = Key("FLEET", "promptq:fleet", "", "string", "15 s", "JSON: what the scaler runs, and its last trouble")

DONE_CHANNEL: Final = "promptq:done"
"""Carries the ids of jobs that reached a terminal state in one script, with spaces between."""
WAKE_CHANNEL: Final = "promptq:wake"
"""Tells idle workers that something was queued; carries the queue's name."""
CANCEL_CHANNEL: Final = "promptq:cancel"
"""Carries the id of each running job that a client cancelled."""

CATALOGUE: Final = tuple(value for value in list(globals().values()) if isinstance(value, Key))


def lua_prelude() -> str:
    """Lua locals with every key's name, put before each script."""
    names = [(key.name, key.prefix) for key in CATALOGUE]
    names += [("DONE", DONE_CHANNEL), ("WAKE", WAKE_CHANNEL), ("CANCEL", CANCEL_CHANNEL)]
    lines = [f"local {name} = '{value}'" for name, value in names]
    return "\n".join([*lines, f"local QUEUE_ORDER = {{{', '.join(repr(q) for q in QUEUES)}}}", ""])
