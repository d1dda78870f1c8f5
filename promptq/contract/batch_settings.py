"""Settings that the API and the dispatcher share: what a call may ask for, and where files are kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from promptq.contract.setting_types import Count, Host, Port, Seconds, Share


class BatchSettings(BaseSettings):
    """Of both programs; a base beside `CommonSettings`."""

    max_prompt_chars: Count = Field(100_000, description="Longer prompts get 422.")
    max_tokens_limit: Count = Field(2048, description="The largest `max_tokens` accepted.")
    files_url: str = Field(
        "", description="Where files are kept, as fsspec names it: `file:///…`, `s3://…`; empty: in the data folder."
    )
    max_file_bytes: Count = Field(200 * 2**20, description="Larger files get 413.")
    max_batch_lines: Count = Field(50_000, description="Lines of a batch's input; more fail the batch.")
    batch_ttl_seconds: Count = Field(30 * 86_400, description="How long a batch and its files are kept after its end.")

    webhook_secret_file: str = Field(
        "",
        description="The secrets of webhook endpoints follow from its text (32 characters or more): the same for "
        "the API and the dispatchers; it is made where there is none. Empty: `webhook.secret` in the data folder.",
    )

    webhook_allow_private: bool = Field(
        False, description="Send events to private, loopback and link-local addresses too, such as one's own network."
    )

    def webhook_secret_path(self, data_dir: Path) -> Path:
        """Where the secret is that those of endpoints follow from."""
        return Path(self.webhook_secret_file) if self.webhook_secret_file else data_dir / "webhook.secret"

    def storage_url(self, data_dir: Path) -> str:
        """Where files are kept."""
        return self.files_url or f"file://{data_dir.resolve()}/files"


class OwnDispatcherSettings(BatchSettings):
    """Of the dispatcher alone; a base beside `CommonSettings`."""

    dispatcher_host: Host = Field("127.0.0.1", description="Address of the dispatcher's /metrics.")
    dispatcher_port: Port = Field(9101, description="Port of the dispatcher's /metrics; 0 picks a free one.")
    batch_queue_share: Share = Field(
        0.5, description="Batches leave the rest of `max_queue_jobs` to others: over this share of it they add no jobs."
    )
    webhook_timeout_seconds: Seconds = Field(15, description="The longest that one try to deliver an event may take.")
    webhook_max_waiting: Count = Field(
        10_000, description="Deliveries that may wait for one endpoint; over it the oldest are given up, and counted."
    )
