"""The workers and the scaler."""

from __future__ import annotations

from panels import RATE, Panel, Query, mean, quantiles, rate

# Workers start too rarely for a rate.
STARTS = "promptq_worker_startup_seconds_bucket"

WORKERS: dict[str, tuple[Panel, ...]] = {
    "Workers": (
        Panel(
            "Workers by state", "As the scaler sees them.", "short",
            (Query("sum by (state) (promptq_workers)", "{{state}}"),), stacked=True,
        ),
        Panel(
            "Jobs per worker", "Ended per second, by worker.", "reqps",
            (Query(rate("promptq_jobs_finished_total", "worker"), "{{worker}}"),), stacked=True,
        ),
        Panel(
            "Busy", "Share of time in engine steps, by worker.", "percentunit",
            (Query(rate("promptq_worker_busy_seconds_total", "worker"), "{{worker}}"),), bounds=(0, 1),
        ),
        Panel(
            "Tokens", "Per second, by type.", "short", (Query(rate("promptq_tokens_total", "type"), "{{type}}"),),
        ),
        Panel(
            "Lost and put back", "Leases that ran out, and jobs put back, per second.", "ops",
            (
                Query(rate("promptq_lease_expiries_total"), "leases expired"),
                Query(rate("promptq_jobs_requeued_total", "reason") + " or vector(0)", "put back {{reason}}"),
            ),
        ),
        Panel(
            "Rows that gave way", "To more urgent jobs, per second, by who to whom.", "ops",
            (Query(rate("promptq_preemptions_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Tokens not generated twice", "Of earlier runs of jobs that changed their worker, per second.", "short",
            (Query(rate("promptq_tokens_resumed_total"), "resumed"),),
        ),
        Panel(
            "Ends of workers", "Since the scaler's start, by reason; `retired` is the orderly one.", "short",
            (Query("sum by (reason) (promptq_worker_exits_total)", "{{reason}}"),),
        ),
        Panel(
            "Servers that refuse", "Workers whose upstream server takes no jobs now, by worker.", "short",
            (Query("max by (worker) (promptq_upstream_open)", "{{worker}}"),),
        ),
    ),
    "Batching": (
        Panel(
            "Batch size", "Rows per decode step: how often each size was used.", "short",
            (Query(rate("promptq_batch_size_bucket", "le"), "{{le}}"),), "heatmap",
        ),
        Panel(
            "Mean batch and slots", "Mean rows per step; slots by state, over all workers.", "short",
            (
                Query(mean("promptq_batch_size"), "mean batch"),
                Query("sum by (state) (promptq_slots)", "{{state}} slots"),
            ),
        ),
        Panel(
            "KV memory", "Tokens of the rows' keys and values: capacity, of it reserved, of that used.", "short",
            (Query("sum by (state) (promptq_kv_tokens)", "{{state}}"),),
        ),
        Panel("Decode step", "One step of all running rows.", "s", quantiles("promptq_decode_step_seconds")),
        Panel("Prefill", "A step's share of prefill.", "s", quantiles("promptq_prefill_seconds")),
        Panel("First token", "From claim to the first token.", "s", quantiles("promptq_time_to_first_token_seconds")),
        Panel("Between tokens", "Between two tokens of a row.", "s", quantiles("promptq_inter_token_latency_seconds")),
    ),
    "Autoscaler": (
        Panel(
            "Wanted and there", "What the policy wants, what works, and the jobs that it decides on.", "short",
            (
                Query("sum(promptq_workers_wanted)", "wanted"),
                Query('sum(promptq_workers{state!="draining"})', "there, starting included"),
                Query('sum(promptq_queue_jobs{state=~"queued|running"})', "jobs"),
            ),
            width=12,
        ),
        Panel(
            "Needed and wanted", "What arrivals and backlog need, and what the policy wants, by model.", "short",
            (
                Query("sum by (model) (promptq_workers_needed)", "{{model}} needs"),
                Query("sum by (model) (promptq_workers_wanted)", "{{model}} wants"),
            ),
        ),
        Panel(
            "Arrivals", "Jobs a second, now, and as a worker that is started now is to find them.", "ops",
            (Query("sum by (model, when) (promptq_arrivals_per_second)", "{{model}} {{when}}"),),
        ),
        Panel(
            "Time in service", "Mean of a job, by model. 0: not known yet.", "s",
            (Query("sum by (model) (promptq_service_seconds)", "{{model}}"),),
        ),
        Panel(
            "Decisions", "Per second, by action and reason. It decides once a second.", "ops",
            (Query(rate("promptq_scaler_decisions_total", "action, reason"), "{{action}} {{reason}}"),), width=12,
            stacked=True,
        ),
        Panel(
            "Start of a worker", "From spawn to registration, over all since the scaler's start.", "s",
            tuple(
                Query(query.expr.replace(f"rate(promptq_worker_startup_seconds_bucket[{RATE}])", STARTS), query.legend)
                for query in quantiles("promptq_worker_startup_seconds")
            ),
        ),
        Panel(
            "Last round", "How long ago the scaler's last round ended.", "s",
            (Query("time() - promptq_scaler_last_loop_timestamp_seconds", "ago"),),
        ),
        Panel(
            "Scraped", "Programs that Prometheus reaches.", "short", (Query("sum by (job) (up)", "{{job}}"),),
        ),
    ),
    "GPU": (
        Panel(
            "GPU busy", "Share of time, by GPU. Empty without an NVIDIA GPU.", "percentunit",
            (Query("promptq_gpu_utilization_ratio", "GPU {{gpu}}"),), width=12, bounds=(0, 1),
        ),
        Panel(
            "GPU memory", "In use, and all there is, by GPU. Empty without an NVIDIA GPU.", "bytes",
            (
                Query("promptq_gpu_memory_used_bytes", "GPU {{gpu}} used"),
                Query("promptq_gpu_memory_total_bytes", "GPU {{gpu}} total"),
            ),
            width=12,
        ),
    ),
}  # fmt: skip

# A counter's series is born at 1, which is no increase yet: so new series count as events too.
DECISIONS = (
    'sum by (action, reason) (increase(promptq_scaler_decisions_total{action!="hold"}[$__interval])) > 0'
    ' or sum by (action, reason) (promptq_scaler_decisions_total{action!="hold"}'
    ' unless promptq_scaler_decisions_total{action!="hold"} offset $__interval)'
)
