"""Options of the command line, and of the web page, beside Locust's own."""

from __future__ import annotations

from typing import Any

from locust import events


@events.init_command_line_parser.add_listener
def add(parser: Any) -> None:
    """Each can be given as an environment variable too: LOCUST_API_KEY and so on."""
    number = {"type": int, "include_in_web_ui": True}
    parser.add_argument(
        "--api-key", env_var="LOCUST_API_KEY", default="", is_secret=True, help="Sent as a bearer token."
    )
    parser.add_argument(
        "--max-tokens", env_var="LOCUST_MAX_TOKENS", default=32, **number, help="max_tokens of each job."
    )
    parser.add_argument(
        "--prompt-words", env_var="LOCUST_PROMPT_WORDS", default=16, **number, help="Words of a prompt."
    )
    parser.add_argument(
        "--seed", env_var="LOCUST_SEED", default=1, **number, help="Prompts and arrivals follow from it."
    )
    parser.add_argument(
        "--offered-rate", env_var="LOCUST_OFFERED_RATE", type=float, default=5.0, help="OpenLoop: jobs a second."
    )
    parser.add_argument(
        "--target-seconds", env_var="LOCUST_TARGET_SECONDS", type=float, default=5.0,
        help="Jobs that end within this time count as goodput.",
    )  # fmt: skip
