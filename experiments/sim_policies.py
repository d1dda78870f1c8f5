"""The policies that experiments/scaler_sim.py compares: ours, and the published rules of others.

Each peer has its own defaults for times and windows, and as many jobs per worker as there are slots where it asks for
that, so that what is compared is when they act. What a rule leaves open is decided in its favour, and said here. Each
names the file that it follows, as it was in November 2026; RunPod publishes no source, but its documentation.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from sim_model import SLOTS, Policy, Sight

from scaler.load import Limits, Load
from scaler.policy import History, decide


def load_of(sight: Sight) -> Load:
    """The same, as the service sees it."""
    return Load(
        sight.queued, sight.running, sight.oldest_age, sight.workers, sight.starting, sight.ended,
        sight.start_seconds, coming_seconds=sight.coming_seconds,
    )  # fmt: skip


class Ours:
    """`scaler.policy.decide`, as the service runs it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._history = History()

    def __call__(self, sight: Sight) -> int:
        decision = decide(load_of(sight), self._history, self._limits, sight.now)
        self._history = decision.history
        return decision.workers


class Before:
    """Our first policy, with its defaults: ceil((queued + running) / slots), 10 % of tolerance downwards, down to the
    highest need of 30 s; one more when a job has waited 10 s, and none less while it does; the last one goes after
    300 s.

    Attributes:
        slots: of one worker.
    """

    def __init__(self, slots: float = SLOTS) -> None:
        self.slots = slots
        self._needs: deque[tuple[float, int]] = deque()
        self._added_at = self._active_at = 0.0

    def __call__(self, sight: Sight) -> int:
        if sight.jobs:
            self._active_at = sight.now
        need = min(sight.largest, self._need(sight))
        self._needs.append((sight.now, need))
        while self._needs[0][0] < sight.now - 30:
            self._needs.popleft()
        if need > sight.workers:
            self._added_at = sight.now
            return need
        if not need and sight.now - self._active_at >= 300:
            return 0
        return min(sight.workers, max(1, *(count for _, count in self._needs)))

    def _need(self, sight: Sight) -> int:
        need = math.ceil(sight.jobs / self.slots - 1e-9)
        if sight.workers and 0 <= 1 - sight.jobs / self.slots / sight.workers <= 0.1:
            need = sight.workers
        if sight.oldest_age <= 10:
            return need
        return max(need, sight.workers + (not sight.starting and sight.now - self._added_at >= 10))


class Keda:
    """KEDA's Redis list scaler (kedacore/keda, pkg/scalers/redis_scaler.go) with the HPA: ceil(list
    length / target) every 30 s, 10 % tolerance, at most doubling (or +4) in 15 s, down to the highest of the last
    300 s, and to zero after 300 s. The list has waiting jobs only."""

    def __init__(self) -> None:
        self._recommended: deque[tuple[float, int]] = deque()
        self._polled_at = -math.inf
        self._active_at = 0.0

    def __call__(self, sight: Sight) -> int:
        if sight.now - self._polled_at < 30:
            return sight.workers
        self._polled_at = sight.now
        if sight.queued:
            self._active_at = sight.now
        if not sight.workers:
            return 1 if sight.queued else 0
        exact = sight.queued / SLOTS
        wanted = sight.workers if abs(exact / sight.workers - 1) <= 0.1 else math.ceil(exact)
        fastest = max(4 * sight.workers, sight.workers + 8)  # two periods of 15 s
        return self._stable(sight, min(max(1, wanted), fastest))

    def _stable(self, sight: Sight, wanted: int) -> int:
        self._recommended.append((sight.now, wanted))
        while self._recommended[0][0] < sight.now - 300:
            self._recommended.popleft()
        if sight.jobs == 0 and sight.now - self._active_at >= 300:
            return 0
        highest = max(count for _, count in self._recommended)
        return wanted if wanted > sight.workers else min(sight.workers, highest)


class Knative:
    """KPA (knative/serving, pkg/autoscaler/scaling/autoscaler.go): mean concurrency over 60 s by 70 % of the target; in
    panic (6 s mean asks for twice what is ready) over 6 s and never down, for 60 s; at most half away at once; every
    2 s. Waiting requests count as concurrency."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._panic_at = -math.inf
        self._panic_workers = 0

    def __call__(self, sight: Sight) -> int:
        self._seen.append((sight.now, sight.jobs))
        while self._seen[0][0] < sight.now - 60:
            self._seen.popleft()
        if round(sight.now) % 2:
            return sight.workers
        ready = max(1, sight.workers - sight.starting)
        stable, panic = self._wanted(sight.now - 60, ready), self._wanted(sight.now - 6, ready)
        if panic >= 2 * ready:
            self._panic_at = sight.now
        if sight.now - self._panic_at >= 60:
            self._panic_workers = 0
            return stable
        self._panic_workers = max(self._panic_workers, panic, sight.workers)
        return self._panic_workers

    def _wanted(self, since: float, ready: int) -> int:
        jobs = [count for at, count in self._seen if at > since]
        exact = sum(jobs) / len(jobs) / (0.7 * SLOTS)
        return max(math.ceil(exact), ready // 2) if exact else ready // 2


class RunPodDelay:
    """RunPod's queue delay: has a request waited over 4 s, workers for all that wait; an idle one goes after 5 s."""

    def __init__(self) -> None:
        self._idle = Idle(5)

    def __call__(self, sight: Sight) -> int:
        missing = math.ceil(sight.queued / SLOTS) - sight.starting if sight.oldest_age > 4 else 0
        return sight.workers + max(0, missing) if missing > 0 else self._idle(sight)


class RunPodCount:
    """RunPod's request count: ceil((queued + running) / target); an idle worker goes after 5 s."""

    def __init__(self) -> None:
        self._idle = Idle(5)

    def __call__(self, sight: Sight) -> int:
        return max(math.ceil(sight.jobs / SLOTS), self._idle(sight))


class Idle:
    """Workers less those that have had nothing to do for some seconds: jobs are packed as tightly as they can be."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._needed: deque[tuple[float, int]] = deque()

    def __call__(self, sight: Sight) -> int:
        self._needed.append((sight.now, math.ceil(sight.jobs / SLOTS)))
        while self._needed[0][0] < sight.now - self._seconds:
            self._needed.popleft()
        return min(sight.workers, max(count for _, count in self._needed))


class RayServe:
    """Ray Serve's policy for queues (ray-project/ray, python/ray/serve/autoscaling_policy.py,
    async_inference_autoscaling_policy): ceil(jobs / target); up when it has said so for 30 s, down for 600 s; from zero
    at once."""

    def __init__(self) -> None:
        self._direction = 0
        self._since = 0.0

    def __call__(self, sight: Sight) -> int:
        if not sight.workers:
            return 1 if sight.jobs else 0
        wanted = math.ceil(sight.jobs / SLOTS)
        direction = (wanted > sight.workers) - (wanted < sight.workers)
        if direction != self._direction:
            self._direction, self._since = direction, sight.now
        if not direction or sight.now - self._since < (30 if direction > 0 else 600):
            return sight.workers
        self._direction = 0
        return wanted if direction > 0 or sight.workers == 1 else max(1, wanted)


class LlmD:
    """llm-d's workload variant autoscaler (llm-d/llm-d-workload-variant-autoscaler,
    internal/engines/analyzers/saturation_v2/analyzer.go and pipeline/cost_aware_optimizer.go), every 60 s: up by demand
    / 0.85 less what is there or coming, down by what is ready less demand / 0.7; one stays. Demand is jobs here, as all
    are of a size; its actuator is taken to follow at once."""

    def __init__(self) -> None:
        self._at = -math.inf

    def __call__(self, sight: Sight) -> int:
        if sight.now - self._at < 60:
            return sight.workers
        self._at = sight.now
        missing = sight.jobs / 0.85 / SLOTS - sight.workers
        if missing > 0:
            return sight.workers + math.ceil(missing)
        spare = sight.workers - sight.starting - sight.jobs / 0.7 / SLOTS
        return max(1, sight.workers - max(0, math.floor(spare)))


class Aibrix:
    """AIBrix' APA (vllm-project/aibrix, pkg/controller/podautoscaler/algorithm/apa.go, context/context.go), every 10 s:
    ceil(workers × use / target) beyond 10 % of tolerance either way, at most twice as many and half as many at once,
    down to the highest of the last 300 s; one stays. Use is jobs per worker that is there or coming."""

    def __init__(self) -> None:
        self._at = -math.inf
        self._recommended: deque[tuple[float, int]] = deque()

    def __call__(self, sight: Sight) -> int:
        if sight.now - self._at < 10:
            return sight.workers
        self._at = sight.now
        if not sight.workers:
            return 1
        ratio = sight.jobs / sight.workers / SLOTS
        wanted = sight.workers
        if ratio > 1.1:
            wanted = min(2 * sight.workers, math.ceil(sight.workers * ratio))
        elif ratio < 0.9:
            wanted = max(sight.workers // 2, math.ceil(sight.workers * ratio), 1)
        self._recommended.append((sight.now, wanted))
        while self._recommended[0][0] < sight.now - 300:
            self._recommended.popleft()
        return wanted if wanted > sight.workers else min(sight.workers, max(count for _, count in self._recommended))


def policies(limits: Limits) -> dict[str, Callable[[], Policy]]:
    """Every policy by its name; each run needs a fresh one."""
    return {
        "promptq": lambda: Ours(limits),
        "before": Before,
        "KEDA + HPA": Keda,
        "Knative KPA": Knative,
        "RunPod delay": RunPodDelay,
        "RunPod count": RunPodCount,
        "Ray Serve": RayServe,
        "llm-d WVA": LlmD,
        "AIBrix APA": Aibrix,
    }
