"""The overview: what users of the service notice."""

from __future__ import annotations

from panels import RATE, Panel, Query, quantiles, rate, stat

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
    "Batches": (
        Panel(
            "Batches", "That have not ended, by status.", "short",
            (Query("max by (status) (promptq_batches)", "{{status}}"),), stacked=True,
        ),
        Panel(
            "Lines", "Written per second, with an answer or without.", "reqps",
            (Query(rate("promptq_batch_lines_total", "outcome"), "{{outcome}}"),), stacked=True,
        ),
        Panel(
            "Jobs of batches", "That wait or run; and submitted per second, by why they have their priority.", "short",
            (
                Query("sum(promptq_batch_jobs_in_flight)", "in flight"),
                Query(rate("promptq_batch_jobs_submitted_total", "priority, reason"), "{{priority}}, {{reason}}"),
            ),
        ),
        Panel(
            "Commit", "Time to write and commit new lines.", "s", quantiles("promptq_batch_commit_seconds"), width=12
        ),
        Panel(
            "Trouble", "Rounds of a dispatcher's duties that failed, per second; files deleted at their end.", "short",
            (
                Query(rate("promptq_dispatcher_failures_total", "duty"), "{{duty}}"),
                Query(rate("promptq_files_expired_total"), "files deleted"),
            ),
            width=12,
        ),
    ),
    "Webhooks": (
        Panel(
            "Tries", "To send an event, per second, by what followed.", "reqps",
            (Query(rate("promptq_webhook_tries_total", "outcome"), "{{outcome}}"),), stacked=True,
        ),
        Panel(
            "What waits", "Deliveries that have not ended, and ends whose deliveries are not noted yet.", "short",
            (
                Query("sum(promptq_webhook_deliveries_waiting)", "deliveries"),
                Query("sum(promptq_outbox_events)", "outbox"),
            ),
        ),
        Panel(
            "Given up", "Per second: deliveries over the bound on what waits; endpoints disabled.", "short",
            (
                Query(rate("promptq_webhook_deliveries_dropped_total"), "deliveries"),
                Query(rate("promptq_webhook_endpoints_disabled_total"), "endpoints"),
            ),
        ),
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
    "Models": (
        Panel(
            "Depth by model", "Jobs waiting.", "short",
            (Query('sum by (model) (promptq_queue_jobs{state="queued"})', "{{model}}"),), stacked=True,
        ),
        Panel(
            "Time in queue by model", "p95, from submit to claim.", "s",
            quantiles("promptq_job_queue_wait_seconds", "model")[1:2],
        ),
        Panel(
            "Tokens by model", "Generated per second.", "short",
            (Query(rate("promptq_tokens_total", "model", '{type="completion"}'), "{{model}}"),), stacked=True,
        ),
        Panel(
            "Workers by model", "That are there or coming, and what each policy wants.", "short",
            (
                Query('sum by (model) (promptq_workers{state!="draining"})', "{{model}}"),
                Query("sum by (model) (promptq_workers_wanted)", "{{model}} wants"),
            ),
            width=12,
        ),
        Panel(
            "Waits for room", "Share of the rounds in which a model had fewer workers than it wants.", "percentunit",
            (
                Query(
                    rate("promptq_scaler_decisions_total", "model", '{reason=~"waits_for_room|shares_room"}')
                    + " / " + rate("promptq_scaler_decisions_total", "model"),
                    "{{model}}",
                ),
            ),
            width=12, bounds=(0, 1),
        ),
    ),
}  # fmt: skip
