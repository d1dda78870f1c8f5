"""What the fleet wants of the API server, asked for when that can bear it. Times are steady seconds."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

from scaler.backoff import Backoff
from scaler.fleets.kubernetes.api import ApiTrouble
from scaler.fleets.kubernetes.pod_cache import PodSource
from scaler.fleets.kubernetes.pods import Pod
from scaler.fleets.kubernetes.template import Manifest, named

log = logging.getLogger(__name__)

CONFLICT: Final = 409


class Pods(PodSource, Protocol):
    """What is asked of the API server; `PodApi` is it."""

    def create(self, pod: Pod) -> Pod:
        """Make a pod."""
        ...

    def delete(self, name: str, grace_seconds: int | None) -> None:
        """Let a pod end."""
        ...

    def owner(self) -> dict[str, Any]:
        """A reference to what owns the pods."""
        ...


class Requests:
    """Pods to make and to delete. After a refusal nothing is asked for 1, 2, 4 … 60 s, or what the server says.

    Attributes:
        trouble: what the server last said to a request, where that was about the server and not about the pod.
    """

    def __init__(self, api: Pods) -> None:
        self._api = api
        self._owner: Mapping[str, Any] | None = None
        self._backoff = Backoff()
        self._deletes: dict[str, int | None] = {}
        self.trouble = ""

    @property
    def backs_off(self) -> bool:
        """Whether the last request was refused."""
        return self._backoff.failures > 0

    def retry_in(self, now: float) -> float | None:
        """Seconds until the next request, or None when nothing waits for it."""
        return self._backoff.retry_in(now)

    def room(self, now: float) -> int | None:
        """How many pods may be asked for now; None: as many as wanted."""
        return self._backoff.room(0, now)

    def make(self, pod: Manifest, now: float) -> Pod | None:
        """Make a pod under a new name; None: the server cannot now.

        Raises:
            ApiTrouble: it will not make this pod.
        """
        try:
            self._owner = self._owner or self._api.owner()
            made = self._create(pod)
        except ApiTrouble as trouble:
            if trouble.is_about_the_pod:
                raise
            self._refused(trouble, now)
            return None
        self._answered(now)
        return made

    def want_deleted(self, name: str, grace_seconds: int | None) -> None:
        """Have a pod deleted at the next `delete`; None: after the grace period of its own, 0: without its node."""
        self._deletes[name] = grace_seconds

    def has_gone(self, name: str) -> None:
        """That pod need not be deleted any more."""
        self._deletes.pop(name, None)

    def delete(self, now: float) -> None:
        """Ask for what is to be deleted; what is refused is asked for again, later."""
        for name, grace_seconds in list(self._deletes.items()):
            if self._backoff.room(0, now) == 0:
                return
            try:
                self._api.delete(name, grace_seconds)
            except ApiTrouble as trouble:
                self._refused(trouble, now)
                return
            del self._deletes[name]
            self._answered(now)

    def _create(self, pod: Manifest) -> Pod:
        try:
            return self._api.create(named(pod, _new_name(), self._owner))
        except ApiTrouble as trouble:
            # A name that is taken, or a quota that another request changed at the same time: both pass at once.
            if trouble.status != CONFLICT:
                raise
            return self._api.create(named(pod, _new_name(), self._owner))

    def _refused(self, trouble: ApiTrouble, now: float) -> None:
        log.warning("%s", trouble)
        self.trouble = str(trouble)
        self._backoff.fail(now)
        self._backoff.retry_at = max(self._backoff.retry_at, now + trouble.retry_after)

    def _answered(self, now: float) -> None:
        self.trouble = ""
        self._backoff.proved(now)


def _new_name() -> str:
    return f"worker-{uuid.uuid4().hex[:8]}"
