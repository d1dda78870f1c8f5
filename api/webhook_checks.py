"""Webhooks that a request names: what may be sent to, and what is kept of it."""

from __future__ import annotations

from api.current import owner, services
from promptq.contract.errors import InvalidRequest
from promptq.contract.job_webhooks import JobWebhook, OwnWebhook, ResponseWebhook
from promptq.contract.webhooks import refuse_inner
from promptq.runtime.secret_file import read_or_make


def check_url(url: str, param: str) -> None:
    """Let an address through that events may be sent to.

    Raises:
        InvalidRequest: it is plainly private, and the settings allow no such.
    """
    if services().settings.webhook_allow_private:
        return
    try:
        refuse_inner(url)
    except ValueError as error:
        raise InvalidRequest(str(error), param=param) from None


def kept(webhook: JobWebhook | ResponseWebhook | None) -> str:
    """What is kept with a job that names a webhook; empty: it names none.

    Raises:
        InvalidRequest: events may not be sent there.
    """
    if webhook is None:
        return ""
    check_url(webhook.url, "webhook.url")
    return OwnWebhook.of(webhook, server_secret(), owner()).encode()


def server_secret() -> str:
    """What all secrets of webhooks follow from."""
    settings = services().settings
    return read_or_make("PROMPTQ_WEBHOOK_SECRET_FILE", settings.webhook_secret_path(settings.data_dir))
