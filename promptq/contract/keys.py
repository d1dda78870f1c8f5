"""Every Redis key: its name, type, fields and lifetime. Nothing else spells a key.

The keys under `rq:` are RQ 3.0's own and keep RQ's meaning. A deployment may put a prefix before all of its names
(`PROMPTQ_KEY_PREFIX`). The Lua scripts get the names through `lua_prelude`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from promptq.contract.call import FUNCTION

LEASE_GRACE_SECONDS: Final = 3600
"""Added to a lease in `rq:wip`, whose past entries RQ's own cleanup would fail; our reaper comes long before."""
PROGRESS_SECONDS: Final = 60
"""How long what a job has generated outlives its end, for those who read it as it came."""
READY_SECONDS: Final = 3600
"""How long a model's idle workers are kept without one that came."""
FORMAT: Final = "2"
"""Which form the jobs in Redis have; see `promptq.queue.upgrade`."""


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key.

    Attributes:
        start: the key, or its beginning when `suffix` says what follows.
        lifetime: what ends it; "permanent" only for keys that are bounded in number and size.
        holds: what is in it.
    """

    start: str
    suffix: str
    type: str
    lifetime: str
    holds: str = field(repr=False)

    def __call__(self, suffix: str = "") -> str:
        return self.start + suffix

    def suffix_of(self, key: bytes) -> str:
        """What follows the beginning in a key of this kind, as Redis replies it."""
        return key.decode().removeprefix(self.start)


class Keys:
    """The keys and channels of one deployment.

    Args:
        prefix: comes before every name, so that several deployments can share a server.
        database: its number on the server. Redis keeps keys by database, but a channel is the whole server's.
    """

    def __init__(self, prefix: str = "", database: int = 0) -> None:
        def key(start: str, suffix: str, kind: str, lifetime: str, holds: str) -> Key:
            return Key(prefix + start, suffix, kind, lifetime, holds)

        trimmed = "entries trimmed at their score"
        self.job = key(
            "rq:job:", "{id}", "hash", "none while live; result_ttl or failure_ttl after the end",
            "RQ's fields, and ours: queued_at, attempts, expires_at, fingerprint, cache, cache_key, cancel_requested, "
            "error_type, error_message, ended_by, retried_by, calls, owner, moves, resets, progress_of, "
            "watched, response, webhook",
        )  # fmt: skip
        self.results = key(
            "rq:results:", "{id}", "stream", "as the job; a cached text's at least cache_ttl_seconds",
            "RQ's results; return_value has text, usage and timings",
        )  # fmt: skip
        self.progress = key(
            "promptq:progress:", "{id}", "stream", "a day from its first entry; a minute after the job's end",
            "what a job has generated so far: token ids and text, by entry; its ids are {resets + 1}-{tokens so far}",
        )  # fmt: skip
        self.queue_names = key("rq:queues", "", "set", "permanent: three a model", "the queues that RQ's tools show")
        self.queue = key("rq:queue:", "{queue}", "list", "gone when empty; bounded by max_queue_jobs", "queued ids")
        self.start_tags = key(
            "promptq:start_tags:", "{queue}", "sorted set", "gone when the queue is empty; claimed jobs' before",
            "ids of waiting jobs of API keys beside others, scored by their start tags",
        )  # fmt: skip
        self.finish_tags = key(
            "promptq:finish_tags:", "{queue}", "hash", "gone when the queue is empty",
            "by API key: the tag at which its next job may begin, a space, what its last one cost",
        )  # fmt: skip
        self.wip = key(
            "rq:wip:", "{queue}", "sorted set", "gone when empty; reaped",
            "{id}:{execution} of running jobs, scored lease end + grace",
        )  # fmt: skip
        self.finished = key("rq:finished:", "{queue}", "sorted set", trimmed, "succeeded ids")
        self.failed = key("rq:failed:", "{queue}", "sorted set", trimmed, "failed and expired ids")
        self.canceled = key("rq:canceled:", "{queue}", "sorted set", trimmed, "cancelled ids")
        self.deferred = key(
            "rq:deferred:", "{queue}", "sorted set", "entries leave with their leader or deadline",
            "ids that joined another job, scored by the time they joined",
        )  # fmt: skip
        self.scheduled = key(
            "rq:scheduled:", "{queue}", "sorted set", "entries leave when they are due",
            "ids that RQ's enqueue_in put aside, scored by when",
        )  # fmt: skip
        self.suspended = key("rq:suspended", "", "string", "as `rq suspend` says", "there: nothing is claimed")
        self.workers = key("rq:workers", "", "set", "members leave with their worker", "keys of registered workers")
        self.workers_of = key("rq:workers:", "{queue}", "set", "as rq:workers", "keys of the workers of a queue")
        self.worker = key(
            "rq:worker:", "{name}", "hash", "expires without heartbeats",
            "RQ's fields, and ours: device, dtype, model, slots, busy_slots, phase, metrics_url, identity, "
            "trouble, instance, drain",
        )  # fmt: skip
        self.ready_workers = key(
            "promptq:ready_workers:", "{queue}", "set", "an hour after the last came; woken, full or gone ones leave",
            "names of a model's workers that have room for more, by its most urgent queue",
        )  # fmt: skip
        self.cache_new = key(
            "promptq:cache:new", "", "hash", "becomes the old one after cache_ttl_seconds, with as long to live",
            "by cache key, {of the request}:{identity}: the entry of a results stream, a space, the id of its job",
        )  # fmt: skip
        self.cache_old = key("promptq:cache:old", "", "hash", "cache_ttl_seconds", "as the new one, what came before")
        self.groups = key(
            "promptq:groups", "", "hash", "a field leaves when its leading job ends; checked by the reaper",
            "by cache key: the ids of identical live jobs with spaces between, the leading one first",
        )  # fmt: skip
        self.idempotency = key(
            "promptq:idempotency:", "{sha256}", "string", "idempotency_ttl_seconds", "the id of the job that it made"
        )
        self.expiry = key(
            "promptq:expiry", "", "sorted set", "entries leave with their job",
            "waiting ids that have a ttl_seconds, scored by when they expire",
        )  # fmt: skip
        self.totals = key(
            "promptq:totals", "", "hash", "permanent: one field a kind",
            "exact counts: submitted, hits, succeeded, failed, cancelled, expired, requeued:{reason}, lease_expiries",
        )  # fmt: skip
        self.usage = key(
            "promptq:usage:", "{day}:{owner}", "hash", "usage_days after the last end of its day",
            "of the jobs of one API key that ended on a day of UTC, by {count}:{model}: succeeded, failed, cancelled, "
            "expired, cache_hits, joins, prompt_tokens, cached_tokens, completion_tokens",
        )  # fmt: skip
        self.model_totals = key(
            "promptq:totals:", "{model}", "hash", "permanent: one a model",
            "of one model's jobs: submitted, hits, succeeded, failed, cancelled, expired",
        )  # fmt: skip
        self.outbox = key(
            "promptq:outbox", "", "stream", "entries leave when the dispatcher has noted their deliveries",
            "ends of jobs, responses and batches that somebody is told of: kind, id, state, owner, webhook",
        )  # fmt: skip
        self.webhook_owners = key(
            "promptq:webhook_owners", "", "set", "members leave with their last endpoint",
            "API keys that have webhook endpoints",
        )  # fmt: skip
        self.webhook = key(
            "promptq:webhook:", "{id}", "hash", "until it is deleted; a host's: a day after its last event",
            "an endpoint: owner, url, events, created_at, version, fingerprint, rotated_at, disabled, disabled_at, "
            "dropped",
        )  # fmt: skip
        self.webhooks = key(
            "promptq:webhooks:", "{owner}", "sorted set", "entries leave with their endpoint",
            "ids of an API key's endpoints, scored by when they were made",
        )  # fmt: skip
        self.webhook_hosts = key(
            "promptq:webhook_hosts:", "{owner}", "sorted set", "bounded; entries trimmed a day after their last event",
            "ids of endpoints of hosts that an API key's jobs named, scored by when nothing waited any more, or inf",
        )  # fmt: skip
        self.webhook_secret = key(
            "promptq:webhook_secret:", "{owner}", "hash", "permanent: one an API key that rotated it",
            "which secret signs for the webhooks of an API key's jobs: version, rotated_at",
        )  # fmt: skip
        self.webhooks_active = key(
            "promptq:webhooks_active", "", "set", "members leave when nothing waits for them, or they are disabled",
            "ids of endpoints that something waits to be sent to",
        )  # fmt: skip
        self.deliveries = key(
            "promptq:deliveries:", "{endpoint}", "hash", "those that wait, and the last thousand that ended",
            "an endpoint's deliveries, by id: JSON, as `Delivery` has it",
        )  # fmt: skip
        self.delivery_order = key(
            "promptq:delivery_order:", "{endpoint}", "sorted set", "entries leave with their delivery",
            "ids of deliveries, scored by when they were noted",
        )  # fmt: skip
        self.deliveries_due = key(
            "promptq:deliveries_due:", "{endpoint}", "sorted set", "entries leave when their delivery has ended",
            "ids of deliveries that wait, scored by when they are to be tried",
        )  # fmt: skip
        self.deliveries_ended = key(
            "promptq:deliveries_ended:", "{endpoint}", "sorted set", "the last thousand",
            "ids of deliveries that have ended, scored by when",
        )  # fmt: skip
        self.drain_rate = key(
            "promptq:drain_rate:", "{model}", "string", "60 s", "its jobs ended a second, by the scaler"
        )
        self.measured = key(
            "promptq:measured:", "{model}", "hash", "30 days after the scaler last wrote it",
            "what the scaler measured: start_seconds, cold_seconds, spare_seconds, service_seconds, slots",
        )  # fmt: skip
        self.turn = key("promptq:turn:", "{model}", "string", "600 s", "when the job refused last should come again")
        self.rate = key("promptq:rate:", "{window}", "string", "two seconds", "requests of an API key, by `limits`")
        self.model = key(
            "promptq:model:", "{model}", "hash", "a day after its last worker's last heartbeat",
            "identity, for cache keys; context_length, tokenizer (tokenizer.json, zlib) and its sha256, for counting",
        )  # fmt: skip
        self.fleet = key("promptq:fleet", "", "string", "15 s", "JSON: what the scaler runs, and its last trouble")
        self.file = key(
            "promptq:file:", "{id}", "hash", "until it is deleted, or expires",
            "a file's record: owner, filename, purpose, bytes, created_at, expires_at, lines, first_lines, errors, "
            "batch_id",
        )  # fmt: skip
        self.files = key(
            "promptq:files:", "{owner}", "sorted set", "entries leave with their file",
            "ids of an API key's files, scored by when they were made",
        )  # fmt: skip
        self.file_expiry = key(
            "promptq:file_expiry",
            "",
            "sorted set",
            "entries leave with their file",
            "file ids, scored by their end; of an upload that is under way, a day after its begin",
        )
        self.batch = key(
            "promptq:batch:", "{id}", "hash", "none while live; batch_ttl_seconds after the end",
            "a batch's record, as `BatchRecord` has it, and last_commit",
        )  # fmt: skip
        self.batches = key(
            "promptq:batches:", "{owner}", "sorted set", "entries leave after their batch",
            "ids of an API key's batches, scored by when they were made",
        )  # fmt: skip
        self.live_batches = key(
            "promptq:live_batches", "", "sorted set", "entries leave when their batch ends",
            "ids of batches that have not ended, scored by when they were made",
        )  # fmt: skip
        self.batch_done = key(
            "promptq:batch_done:", "{id}", "string", "until the batch ends; then as its record",
            "a bit for each line, set once it is in the output or the error file",
        )  # fmt: skip
        self.batch_parts = key(
            "promptq:batch_parts:", "{id}", "list", "until the batch ends", "what was written: kind, name, bytes, lines"
        )
        self.lease = key(
            "promptq:lease:", "{what}", "string", "lease_seconds, unless it is renewed", "the token of who holds it"
        )
        self.format = key("promptq:format", "", "string", "permanent: one", "the form of the jobs, for upgrades")

        self.done_channel = f"{prefix}promptq:{database}:done"
        """Carries the ids of jobs that reached a terminal state in one script, with spaces between."""
        self.wake_channel = f"{prefix}promptq:{database}:wake"
        """Tells workers that something was queued; carries the queue's name."""
        self.cancel_channel = f"{prefix}promptq:{database}:cancel"
        """Carries the id of each running job that a client cancelled."""
        self.watch_channel = f"{prefix}promptq:{database}:watch"
        """Carries the id of a job whose text somebody began to read as it comes."""
        self.moved_channel = f"{prefix}promptq:{database}:moved"
        """Carries the ids of such jobs that got text in one script, with spaces between."""
        self.drain_channel = f"{prefix}promptq:{database}:drain"
        """Carries the name of a worker that is asked to drain."""

    def wake_channel_of(self, worker: str) -> str:
        """Tells one worker, which has room, that something was queued."""
        return f"{self.wake_channel}:{worker}"

    def catalogue(self) -> dict[str, Key]:
        """Every kind of key by its name here."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Key)}


def usage_prelude(default_model: str, days: int) -> str:
    """Lua locals for the scripts in which jobs end: the default model, and how long usage is kept."""
    quoted = default_model.replace("\\", "\\\\").replace("'", "\\'")
    return f"local DEFAULT_MODEL = '{quoted}'\nlocal USAGE_DAYS = {days}\n"


def lua_prelude(keys: Keys) -> str:
    """Lua locals with the name of every key and channel, put before each script."""
    names = {name: key.start for name, key in keys.catalogue().items()}
    names |= {"done": keys.done_channel, "wake": keys.wake_channel, "cancel": keys.cancel_channel}
    names |= {"watch": keys.watch_channel, "moved": keys.moved_channel, "drain": keys.drain_channel}
    lines = [f"local {name.upper()} = '{value}'" for name, value in names.items()]
    return "\n".join(
        [
            *lines,
            f"local LEASE_GRACE = {LEASE_GRACE_SECONDS}",
            f"local PROGRESS_SECONDS = {PROGRESS_SECONDS}",
            f"local READY_SECONDS = {READY_SECONDS}",
            f"local FUNCTION = '{FUNCTION}'",
            "",
        ]
    )
