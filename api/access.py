"""Who may call, how often, and whose jobs they see."""

from __future__ import annotations

import math
import time
from functools import lru_cache

from flask import request
from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.api_keys import digest, read_keys
from api.errors import ForeignSite, TooManyRequests, Unauthorized
from promptq.contract import addresses
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job
from promptq.contract.settings import ApiSettings
from promptq.queue.store import JobStore


class Access:
    """Checks API keys and their limits; without keys, admits programs but not the web pages of other sites.

    Raises:
        SettingsError: the file of keys cannot be used.
    """

    def __init__(self, settings: ApiSettings, store: JobStore) -> None:
        self._settings = settings
        self._keys = read_keys(settings.api_keys_file) if settings.api_keys_file else {}
        self._weights = {key.name: key.weight for key in self._keys.values()}
        self._for_this_machine = settings.is_loopback and not settings.allow_open_bind
        # The store's pool of connections, so that its server and its time-outs hold here too, whatever the URL says.
        pool = store.client.connection_pool
        prefix = store.keys.rate.start.rstrip(":")
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix=prefix, wrap_exceptions=True)
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._rate = RateLimitItemPerSecond(max(1, settings.key_requests_per_second))

    def admit(self) -> str:
        """Check the present request; return the name of its key, or an empty string where no keys are in use.

        Raises:
            Unauthorized: no key, or an unknown one.
            ForeignSite: a browser sends another site's request.
            TooManyRequests: the key is over a limit.
        """
        if not self._keys:
            self._refuse_other_sites()
            return ""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = self._keys.get(digest(key.strip()))
        if scheme.lower() != "bearer" or known is None:
            raise Unauthorized("Send a known API key: `Authorization: Bearer <key>`.", param="Authorization")
        self._limit(known.name)
        return known.name

    def may_see(self, name: str, job: Job) -> bool:
        """Whether the job is this key's; without keys everybody sees every job."""
        return self.owns(name, job.owner)

    def owns(self, name: str, owner: str) -> bool:
        """Whether what has this owner is this key's; without keys all is everybody's."""
        return not self._keys or owner == name

    def weight(self, name: str) -> float:
        """The share of a queue that a name has beside the others; 0: there is no other one to share with."""
        return self._weights[name] if len(self._weights) > 1 else 0.0

    def _limit(self, name: str) -> None:
        if not self._settings.key_requests_per_second:
            return
        try:
            if self._limiter.hit(self._rate, name):
                return
            reset = self._limiter.get_window_stats(self._rate, name).reset_time
        except StorageError as error:
            raise RedisUnavailable(str(error.storage_error)) from error
        message = f"This key may send {self._rate.amount} requests a second."
        raise TooManyRequests("rate_limited", message, max(1, math.ceil(reset - time.time())))

    def _refuse_other_sites(self) -> None:
        """A web page can make a browser on this machine send requests here: by a form, or under a host name of its own
        that resolves to 127.0.0.1. Programs send no Origin, and use one of this machine's own names as Host.

        What a proxy in front is called is a setting. Headers like X-Forwarded-Host are no proof: anybody may send them.
        """
        environ = request.environ
        host = environ.get("HTTP_HOST", "localhost")
        if self._for_this_machine and not _is_named(host, self._settings.public_origin):
            raise ForeignSite("Call this service as localhost, or set up API keys.", param="Host")
        origin = environ.get("HTTP_ORIGIN")
        if origin not in (None, f"{request.scheme}://{host}", self._settings.public_origin or None):
            raise ForeignSite("Requests from web pages of other sites are refused.", param="Origin")


@lru_cache(256)
def _is_named(host: str, public_origin: str) -> bool:
    """Whether a Host header names this machine, or the proxy in front of it."""
    name = _host_of(f"//{host}")
    return addresses.is_loopback(name) or bool(public_origin and name == _host_of(public_origin))


def _host_of(url: str) -> str:
    name, _ = addresses.split(url) or ("", None)
    return name
