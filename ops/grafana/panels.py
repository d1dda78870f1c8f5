"""What both dashboards show. `python ops/grafana/build.py` makes the JSON from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RATE = "$__rate_interval"
# Workers start too rarely for a rate.
STARTS = "promptq_worker_startup_seconds_bucket"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression, and how its series are named."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's name of it; `width` counts in 24ths."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8
    stacked: bool = False
    bounds: tuple[float | None, float | None] = field(default=(0, None))


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """Increase per second, summed."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{labels}[{RATE}]))"


def quantiles(metric: str, by: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        Query(f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))", f"p{q * 100:.0f}{legend}")
        for q in (0.5, 0.95, 0.99)
    )


def mean(metric: str) -> str:
    """Mean of a histogram's observations."""
    return f"sum(rate({metric}_sum[{RATE}])) / sum(rate({metric}_count[{RATE}]))"


def stat(title: str, description: str, unit: str, expr: str) -> Panel:
    """One number."""
    return Panel(title, description, unit, (Query(expr, title),), "stat", width=3)


OVERVIEW: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        stat("Submitted", "Jobs acknowledged per second.", "reqps", rate("promptq_jobs_submitted_total")),
        stat("Finished", "Jobs that workers ended per second.", "reqps", rate("promptq_jobs_finished_total")),
        stat("Queued", "Jobs waiting, over all priorities.", "short", 'sum(promptq_queue_jobs{state="queued"})'),
        stat("Running", "Jobs leased to a worker.", "short", 'sum(promptq_queue_jobs{state="running"})'),
        stat("Workers", "Processes that work: idle or busy.", "short", 'sum(promptq_workers{state=~"idle|busy"})'),
        stat(
            "Job p95", "From submit to the stored result.", "s",
            f"histogram_quantile(0.95, sum by (le) (rate(promptq_job_duration_seconds_bucket[{RATE}])))",
        ),
        stat("Tokens", "Generated per second.", "short", rate("promptq_tokens_total", labels='{type="completion"}')),
        stat("Alerts", "Alerts firing now.", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)'),
    ),
    "API": (
        Panel(
            "Requests", "Answered per second, by route.", "reqps",
            (Query(rate("promptq_http_requests_total", "method, route"), "{{method}} {{route}}"),), stacked=True,
        ),
        Panel(
            "Statuses", "Answers per second, by HTTP status.", "reqps",
            (Query(rate("promptq_http_requests_total", "status"), "{{status}}"),), stacked=True,
        ),
        Panel(
            "Request time", "Long polls included: those take as long as they may wait.", "s",
            quantiles("promptq_http_request_duration_seconds"),
        ),
        Panel(
            "Submit time", "Until a submit is acknowledged.", "s",
            tuple(
                Query(query.expr.replace("_bucket[", '_bucket{method="POST", route="/v1/jobs"}['), query.legend)
                for query in quantiles("promptq_http_request_duration_seconds")
            ),
        ),
        Panel(
            "Open requests", "Being answered now; waiting clients are among them.", "short",
            (Query("sum(promptq_http_requests_in_progress)", "open"),),
        ),
        Panel(
            "Refused and failed", "Submits refused, by the error's type; answers with 5xx as a share of all.", "reqps",
            (
                Query(rate("promptq_jobs_rejected_total", "reason"), "{{reason}}"),
                Query("promptq:http_errors:ratio_5m", "5xx, share of all"),
            ),
        ),
    ),
    "Queue": (
        Panel(
            "Depth", "Jobs waiting, by priority.", "short",
            (Query('sum by (queue) (promptq_queue_jobs{state="queued"})', "{{queue}}"),), stacked=True,
        ),
        Panel(
            "In and out", "Jobs acknowledged, and jobs ended by workers, per second. Cache hits end without a worker.",
            "reqps",
            (
                Query(rate("promptq_jobs_submitted_total"), "submitted"),
                Query(rate("promptq_jobs_finished_total", "status"), "{{status}}"),
            ),
        ),
        Panel(
            "Oldest job", "How long the job at the head of each queue has waited.", "s",
            (Query("max by (queue) (promptq_queue_oldest_job_age_seconds)", "{{queue}}"),),
        ),
        Panel(
            "Time in queue", "From submit to claim; over five minutes as the alert sees it.", "s",
            (*quantiles("promptq_job_queue_wait_seconds"), Query("promptq:job_queue_wait_seconds:p95_5m", "p95, 5 m")),
        ),
        Panel(
            "Job time by priority", "From submit to the stored result.", "s",
            quantiles("promptq_job_duration_seconds", "queue"),
        ),
        Panel(
            "Running and dead", "Jobs under a lease; failed jobs that are kept.", "short",
            (Query('sum by (state) (promptq_queue_jobs{state=~"running|dead"})', "{{state}}"),),
        ),
    ),
    "Cache": (
        Panel(
            "Cache answers", "Submits by what the cache gave; join: an identical job was on its way.",
            "reqps", (Query(rate("promptq_cache_requests_total", "result"), "{{result}}"),), stacked=True,
        ),
        Panel(
            "Saved", "Share of submits that need no generation of their own.", "percentunit",
            (
                Query(
                    rate("promptq_cache_requests_total", labels='{result=~"hit|join"}')
                    + " / " + rate("promptq_cache_requests_total"), "hit or join",
                ),
            ),
            bounds=(0, 1),
        ),
        Panel("Entries", "Cached texts, some too old.", "short", (Query("promptq_cache_entries", "entries"),)),
    ),
    "Load test": (
        Panel(
            "Users and rate", "While Locust has its page open: users, and requests per second as it counts them.",
            "short",
            (
                Query("locust_users", "users"),
                Query(f"sum(rate(locust_requests_total[{RATE}]))", "requests/s"),
                Query(f"sum(rate(locust_failures_total[{RATE}])) or vector(0)", "failures/s"),
            ),
        ),
        Panel(
            "Locust's job time", "Quantiles of the JOB rows, as the client sees them.", "s",
            (Query('locust_response_time_seconds{method="JOB"}', "{{name}} p{{quantile}}"),),
        ),
        Panel(
            "The same from within", "Job time as the workers see it: the difference is the way and the polling.", "s",
            quantiles("promptq_job_duration_seconds"),
        ),
    ),
}  # fmt: skip

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
            "Servers that refuse", "Workers whose upstream server takes no jobs now, by worker.", "short",
            (Query("max by (worker) (promptq_upstream_open)", "{{worker}}"),),
        ),
        Panel(
            "Ends of workers", "Since the scaler's start, by reason; `retired` is the orderly one.", "short",
            (Query("sum by (reason) (promptq_worker_exits_total)", "{{reason}}"),),
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
        Panel("Decode step", "One step of all running rows.", "s", quantiles("promptq_decode_step_seconds")),
        Panel("Prefill", "A step's share of prefill.", "s", quantiles("promptq_prefill_seconds")),
        Panel("First token", "From claim to the first token.", "s", quantiles("promptq_time_to_first_token_seconds")),
        Panel("Between tokens", "Between two tokens of a row.", "s", quantiles("promptq_inter_token_latency_seconds")),
    ),
    "Autoscaler": (
        Panel(
            "Wanted and there", "What the policy wants, what works, and the jobs that it decides on.", "short",
            (
                Query("promptq_workers_wanted", "wanted"),
                Query('sum(promptq_workers{state!="draining"})', "there, starting included"),
                Query('sum(promptq_queue_jobs{state=~"queued|running"})', "jobs"),
            ),
            width=12,
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
