"""Every metric that promptq exports: name, labels, buckets. Each class takes a registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS = (.005, .01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)  # fmt: skip
FIRST_TOKEN_BUCKETS = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10)  # fmt: skip
STEP_BUCKETS = (.0005, .001, .0025, .005, .01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
STARTUP_BUCKETS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 600)
LOSSES = "Subscriptions to Redis that broke, fell silent or could not be made."


class ApiMetrics:
    """What an API process counts; gauges sum over the live gunicorn processes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "promptq_http_requests_total", "HTTP requests answered.", ["method", "route", "status"], registry=registry
        )
        self.request_duration = Histogram(
            "promptq_http_request_duration_seconds", "Time to answer a request, long polls included.",
            ["method", "route"], buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.in_progress = Gauge(
            "promptq_http_requests_in_progress", "Requests being answered now.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip
        self.streams = Gauge(
            "promptq_http_streams", "Streams of jobs' texts that are open now.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip
        self.cache_requests = Counter(
            "promptq_cache_requests_total", "Submits by what the cache gave: hit, miss, join or bypass.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.submitted = Counter(
            "promptq_jobs_submitted_total", "Jobs acknowledged.", ["queue", "model"], registry=registry
        )
        self.rejected = Counter(
            "promptq_jobs_rejected_total", "Submits refused, by the error's type.", ["reason"], registry=registry
        )
        self.subscription_losses = Counter("promptq_api_subscription_losses_total", LOSSES, registry=registry)


class WorkerMetrics:
    """What one worker process measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.queue_wait = histogram(
            "promptq_job_queue_wait_seconds", "From submit to claim.", ["queue", "model"], DURATION_BUCKETS
        )
        self.job_duration = histogram(
            "promptq_job_duration_seconds", "From submit to the stored result.", ["queue", "model"], DURATION_BUCKETS
        )
        self.time_to_first_token = histogram(
            "promptq_time_to_first_token_seconds", "From claim to the first token.", ["model"], FIRST_TOKEN_BUCKETS
        )
        self.inter_token_latency = histogram(
            "promptq_inter_token_latency_seconds", "Between two tokens of a row.", ["model"], STEP_BUCKETS
        )
        self.batch_size = histogram("promptq_batch_size", "Rows in a decode step.", ["model"], BATCH_BUCKETS)
        self.decode_step = histogram(
            "promptq_decode_step_seconds", "One decode step of all running rows.", ["model"], STEP_BUCKETS
        )
        self.prefill = histogram("promptq_prefill_seconds", "One step's share of prefill.", ["model"], STEP_BUCKETS)
        self.slots = Gauge("promptq_slots", "Rows that fit, by state: busy, free.", ["state"], registry=registry)
        self.kv_tokens = Gauge(
            "promptq_kv_tokens", "Tokens of the rows' KV memory: capacity; of it reserved by rows; of that used.",
            ["model", "state"], registry=registry,
        )  # fmt: skip
        self.finished = counter("promptq_jobs_finished_total", "Jobs this worker ended.", ["model", "status"])
        self.tokens = counter("promptq_tokens_total", "Tokens, by type: prompt, completion.", ["model", "type"])
        self.drafts = counter("promptq_draft_tokens_total", "Guessed tokens: right, wrong.", ["model", "outcome"])
        self.reused = counter(
            "promptq_prompt_tokens_reused_total", "Prompt tokens that were in memory, and not computed.", ["model"]
        )
        self.too_large = counter(
            "promptq_passes_too_large_total", "Passes over the model that the memory was too short for.", ["model"]
        )
        self.preemptions = counter(
            "promptq_preemptions_total", "Running rows that gave way, by who to: high_over_low.", ["model", "reason"]
        )
        self.resumed = counter(
            "promptq_tokens_resumed_total", "Tokens of earlier runs that did not have to be generated again.", ["model"]
        )
        self.upstream_open = Gauge(
            "promptq_upstream_open", "1 while the worker's server refuses, and gets no jobs.", registry=registry
        )
        self.busy_seconds = counter("promptq_worker_busy_seconds_total", "Time spent in engine steps.", [])
        self.subscription_losses = counter("promptq_worker_subscription_losses_total", LOSSES, [])


class ScalerMetrics:
    """What the scaler decides and sees happen. The gauges of queues and GPUs come from collectors at scrape time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.workers = Gauge(
            "promptq_workers",
            "Workers by state: starting, idle, busy, draining.",
            ["model", "state"],
            registry=registry,
        )
        self.wanted = Gauge("promptq_workers_wanted", "Workers that the policy wants.", ["model"], registry=registry)
        self.need = Gauge(
            "promptq_workers_needed", "Workers that the arrivals and the backlog need, before anything holds them.",
            ["model"], registry=registry,
        )  # fmt: skip
        self.arrivals = Gauge(
            "promptq_arrivals_per_second", "Jobs a second, now, and as a worker that is started now is to find them.",
            ["model", "when"], registry=registry,
        )  # fmt: skip
        self.service = Gauge(
            "promptq_service_seconds", "A job's mean time in service; 0: not known yet.", ["model"], registry=registry
        )
        self.decisions = Counter(
            "promptq_scaler_decisions_total", "Decisions, by action (up, down, hold) and reason.",
            ["model", "action", "reason"], registry=registry,
        )  # fmt: skip
        self.last_loop = Gauge(
            "promptq_scaler_last_loop_timestamp_seconds", "When the last round ended.", registry=registry
        )
        self.leads = Gauge(
            "promptq_scaler_leads", "1 of the scaler that decides, 0 of one that waits.", registry=registry
        )
        self.worker_exits = Counter(
            "promptq_worker_exits_total", "Worker processes that ended, by reason.", ["reason"], registry=registry
        )
        self.startup = Histogram(
            "promptq_worker_startup_seconds",
            "From spawn to registration.",
            ["model"],
            buckets=STARTUP_BUCKETS,
            registry=registry,
        )
        self.cache_entries = Gauge(
            "promptq_cache_entries", "Cached texts, those past their lifetime until they go included.",
            registry=registry,
        )  # fmt: skip

    def tell_outlook(self, model: str, now: float, expected: float, need: int) -> None:
        """Set what the policy expects of a model."""
        self.arrivals.labels(model, "now").set(now)
        self.arrivals.labels(model, "expected").set(expected)
        self.need.labels(model).set(need)


BATCH_PRIORITIES = (("low", "slack"), ("default", "window_ends"), ("default", "behind"))
"""Of jobs of batches, with the reason of each."""


class DispatcherMetrics:
    """What a dispatcher does with batches, files and webhooks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batches = Gauge(
            "promptq_batches", "Batches that have not ended, of all dispatchers, by status.", ["status"],
            registry=registry,
        )  # fmt: skip
        self.held = Gauge("promptq_dispatcher_batches_held", "Batches that this dispatcher runs.", registry=registry)
        self.in_flight = Gauge(
            "promptq_batch_jobs_in_flight", "Jobs of batches that wait or run, of this dispatcher.", registry=registry
        )
        self.lines = Counter(
            "promptq_batch_lines_total", "Lines written to a file: completed, failed.", ["outcome"], registry=registry
        )
        self.submitted = Counter(
            "promptq_batch_jobs_submitted_total", "Jobs of batches, by priority and why they have it.",
            ["priority", "reason"], registry=registry,
        )  # fmt: skip
        self.commit = Histogram(
            "promptq_batch_commit_seconds", "Time to write and commit a batch's new lines.", buckets=DURATION_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.files_expired = Counter("promptq_files_expired_total", "Files deleted at their end.", registry=registry)
        self.failures = Counter(
            "promptq_dispatcher_failures_total", "Rounds of a duty that failed, by duty.", ["duty"], registry=registry
        )
        self.webhook_tries = Counter(
            "promptq_webhook_tries_total", "Tries to send an event, by what followed: delivered, retried, failed.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self.webhooks_waiting = Gauge(
            "promptq_webhook_deliveries_waiting", "Deliveries that have not ended, by the dispatcher that sends them.",
            registry=registry,
        )  # fmt: skip
        self.webhooks_dropped = Counter(
            "promptq_webhook_deliveries_dropped_total", "Deliveries that were given up because too many waited.",
            registry=registry,
        )  # fmt: skip
        self.outbox_events = Gauge(
            "promptq_outbox_events", "Ends whose deliveries are not noted yet, by the dispatcher that sends.",
            registry=registry,
        )  # fmt: skip
        self.webhooks_disabled = Counter(
            "promptq_webhook_endpoints_disabled_total", "Endpoints that are sent no more events, for their failures.",
            registry=registry,
        )  # fmt: skip
        for outcome in ("delivered", "retried", "failed"):
            self.webhook_tries.labels(outcome)
        for outcome in ("completed", "failed"):  # so that their rates are seen from the first one on
            self.lines.labels(outcome)
        for priority, reason in BATCH_PRIORITIES:
            self.submitted.labels(priority, reason)
        self.last_loop = Gauge(
            "promptq_dispatcher_last_loop_timestamp_seconds", "When the last round ended.", registry=registry
        )


QUEUE_JOBS = ("promptq_queue_jobs", "Jobs by state: queued, running, dead.", ("model", "queue", "state"))
QUEUE_OLDEST_AGE = ("promptq_queue_oldest_job_age_seconds", "Wait of the job at the head.", ("model", "queue"))
LEASE_EXPIRIES = ("promptq_lease_expiries", "Leases that ran out, exact: counted in Redis.", ())
REQUEUE_REASONS = ("worker_lost", "drain", "preempted", "retry", "upstream", "upstream_lost")
JOBS_REQUEUED = ("promptq_jobs_requeued", "Jobs put back, by reason, exact: counted in Redis.", ("reason",))
REDIS_TROUBLES = ("promptq_redis_troubles", "What is wrong with the queue's server, by what follows.", ("grade",))
GPU_UTILIZATION = ("promptq_gpu_utilization_ratio", "Share of time the GPU was busy.", ("gpu",))
GPU_MEMORY_USED = ("promptq_gpu_memory_used_bytes", "GPU memory in use.", ("gpu",))
GPU_MEMORY_TOTAL = ("promptq_gpu_memory_total_bytes", "GPU memory.", ("gpu",))
