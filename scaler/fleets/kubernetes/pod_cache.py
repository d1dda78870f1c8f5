"""The fleet's pods as the API server last told: one list, then a watch, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from scaler.fleets.kubernetes.api import GONE, ApiTrouble
from scaler.fleets.kubernetes.pods import Pod

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 30.0
BETWEEN_WATCHES_SECONDS: Final = 0.2
GONE_AT_MOST: Final = 10_000


class PodSource(Protocol):
    """The half of PodApi that reads."""

    def list(self) -> tuple[Sequence[Pod], str]:
        """Every pod, and the version from which a watch goes on."""
        ...

    def watch(self, version: str) -> Iterator[tuple[str, Pod]]:
        """What happens after that version."""
        ...


@dataclass(slots=True)
class _Known:
    pod: Pod
    lists_begun: int
    """How many lists had been asked for when it was put in: an earlier one cannot have it."""


@dataclass(slots=True)
class _Contents:
    pods: dict[str, _Known] = field(default_factory=dict)
    gone: dict[str, Pod] = field(default_factory=dict)


class PodCache:
    """Pods by name. Read it from one thread; it is written by another.

    Args:
        wait: sleeps for so many seconds unless it is closed; tells whether it was.
    """

    def __init__(self, source: PodSource, wait: Callable[[float], bool] | None = None) -> None:
        self._source = source
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._lock = threading.Lock()
        self._contents = _Contents()
        self._lists_begun = 0
        self._version = ""
        self._thread: threading.Thread | None = None
        self.trouble = ""
        self.synced = threading.Event()

    def start(self) -> None:
        """Begin to follow; once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="pods", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop at the next occasion; a thread that waits for the server ends with the process."""
        self._closed.set()

    def put(self, pod: Pod) -> None:
        """Add a pod that was just made, so that it is known before the watch tells of it."""
        name = pod["metadata"]["name"]
        with self._lock:
            if name not in self._contents.gone:
                self._contents.pods.setdefault(name, _Known(pod, self._lists_begun))

    def read(self) -> tuple[dict[str, Pod], dict[str, Pod]]:
        """The pods there are, and those that have gone since the last call, as they were last seen."""
        with self._lock:
            gone, self._contents.gone = self._contents.gone, {}
            return {name: known.pod for name, known in self._contents.pods.items()}, gone

    def _follow(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                self._list_if_needed()
                for kind, pod in self._source.watch(self._version):
                    failures, self.trouble = 0, ""
                    self._apply(kind, pod)
                failures = 0
                self._wait(BETWEEN_WATCHES_SECONDS)
            except ApiTrouble as trouble:
                if trouble.status == GONE:
                    self._version = ""
                failures += 1
                self._back_off(trouble, failures)

    def _list_if_needed(self) -> None:
        if self._version:
            return
        with self._lock:
            self._lists_begun += 1
            number = self._lists_begun
        pods, version = self._source.list()
        self._replace({pod["metadata"]["name"]: pod for pod in pods}, number)
        self._version, self.trouble = version, ""
        self.synced.set()

    def _replace(self, listed: dict[str, Pod], number: int) -> None:
        """Go over to a list. What is missing in it has gone, unless it was made while the list was."""
        with self._lock:
            contents = self._contents
            for name, known in list(contents.pods.items()):
                if name not in listed and known.lists_begun < number:
                    self._forget(name, known.pod)
            contents.pods.update({name: _Known(pod, number) for name, pod in listed.items()})

    def _apply(self, kind: str, pod: Pod) -> None:
        meta = pod["metadata"]
        with self._lock:
            if kind == "DELETED":
                self._forget(meta["name"], pod)
            elif kind in ("ADDED", "MODIFIED"):
                self._contents.pods[meta["name"]] = _Known(pod, self._lists_begun)
        self._version = meta["resourceVersion"]

    def _forget(self, name: str, pod: Pod) -> None:
        self._contents.pods.pop(name, None)
        # A scaler that does not lead follows too, and reads nothing: what it never saw alive is of no interest later.
        if len(self._contents.gone) < GONE_AT_MOST:
            self._contents.gone[name] = pod

    def _back_off(self, trouble: ApiTrouble, failures: int) -> None:
        if trouble.status != GONE:
            self.trouble = str(trouble)
            log.warning("The pods cannot be followed: %s", trouble)
        # A watch that was cut off goes on at once, where it was; after that ever later.
        seconds = 0.0 if failures == 1 else min(LONGEST_WAIT_SECONDS, 2.0 ** (failures - 2))
        self._wait(max(seconds, trouble.retry_after))
