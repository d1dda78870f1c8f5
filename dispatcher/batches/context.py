"""What all batches of a dispatcher share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dispatcher.batches.models import Models
from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.settings import DispatcherSettings
from promptq.queue.batches import BatchRecords
from promptq.queue.files import FileRecords
from promptq.queue.store import JobStore
from promptq.runtime.traces import Traces
from promptq.storage.storage import Storage


class Stopping(Exception):
    """The process is about to stop: what goes on is another's to do again."""


@dataclass(slots=True)
class Context:
    """Made once for a dispatcher.

    Attributes:
        now: of this round, by the server's clock, in seconds since the epoch.
        stopping: the process is about to stop, so nothing waits any more.
    """

    settings: DispatcherSettings
    store: JobStore
    batches: BatchRecords
    files: FileRecords
    storage: Storage
    models: Models
    metrics: DispatcherMetrics
    traces: Traces = field(default_factory=Traces)
    now: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
