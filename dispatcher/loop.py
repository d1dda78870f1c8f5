"""The dispatcher's rounds."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from dispatcher.duties import Duty
from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import DispatcherMetrics
from promptq.runtime.lifecycle import Stop
from promptq.storage.storage import StorageUnavailable

log = logging.getLogger(__name__)

BUSY_SECONDS = 0.05
IDLE_SECONDS = 0.5


class DispatcherLoop:
    """Gives each duty its rounds until a stop is requested."""

    def __init__(self, duties: Sequence[Duty], metrics: DispatcherMetrics) -> None:
        self._duties = duties
        self._metrics = metrics
        self._trouble: dict[str, str] = {}
        for duty in duties:
            metrics.failures.labels(duty.name)

    def run(self, stop: Stop) -> None:
        """Until the stop; then every duty is closed."""
        while not stop.requested:
            began = time.monotonic()
            for duty in self._duties:
                self._round(duty)
            self._metrics.last_loop.set(time.time())
            interval = BUSY_SECONDS if any(duty.is_busy for duty in self._duties) else IDLE_SECONDS
            stop.wait(interval - (time.monotonic() - began))
        for duty in self._duties:
            duty.close()

    def _round(self, duty: Duty) -> None:
        try:
            duty.run()
            if self._trouble.pop(duty.name, None):
                log.info("%s go on.", duty.name.capitalize())
        except (RedisUnavailable, StorageUnavailable) as error:
            self._metrics.failures.labels(duty.name).inc()
            if duty.name not in self._trouble:
                log.warning("%s wait: %s", duty.name.capitalize(), error)
            self._trouble[duty.name] = error.message
        except Exception:
            self._metrics.failures.labels(duty.name).inc()
            log.exception("This round of %s failed; the next one goes on.", duty.name)
