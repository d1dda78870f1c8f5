"""What schemathesis cannot read out of the schema: which model is served, and what its engine, echo, cannot do."""

from __future__ import annotations

from typing import Any

import schemathesis

MODEL = "echo"
REFUSED = (
    "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs",
    "response_format", "text", "tools", "tool_choice", "continue_final_message", "add_generation_prompt", "include",
    "previous_response_id", "background_options", "timeout_seconds", "ttl_seconds",
)  # fmt: skip
"""Fields that an echo refuses, that refer to others, or that end a job before its text."""
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SOME = 5
"""One case in so many stays as it was made up, so that refusals are tried too."""
_made = iter(range(10**9))


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Make most requests to OpenAI's paths such that they get through, or all behind those checks is never reached.

    Those that are wrong on purpose stay as they are.
    """
    if case.path.endswith("/drain"):  # whoever drains the only worker waits for all that follows
        case.path_parameters["name"] = f"not-{case.path_parameters['name']}"
    is_right = bool(case.meta) and case.meta.generation.mode.is_positive
    if not is_right or not isinstance(case.body, dict) or "model" not in case.body or not next(_made) % SOME:
        return
    case.body["model"] = MODEL
    for name in REFUSED:
        case.body.pop(name, None)
    for name in LIMITS:
        if case.body.get(name) is not None:
            case.body[name] = 1 + case.body[name] % 100
    # One key for many requests is a conflict.
    (case.headers or {}).pop("Idempotency-Key", None)
