"""What a run does: its jobs and its faults, both decided by the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

LEASE_SECONDS = 2.0
KILLS = ("kill worker", "kill api", "kill api child", "kill scaler", "kill redis")
SHARES = {
    "kill worker": 8, "kill api": 3, "kill api child": 2, "kill scaler": 4, "kill redis": 4,
    "pause worker": 3, "pause api": 1, "pause scaler": 1, "pause redis": 1,
    "drain worker": 2, "drop connections": 1, "silence connections": 1, "flush scripts": 1, "fill queue": 2,
    "fill disk": 1, "step clock": 4, "evict keys": 2,
}  # fmt: skip
STATES_ALLOWED = {"succeeded", "cancelled", "expired", "worker_lost"}


@dataclass(frozen=True)
class Spec:
    """One job that a client will submit."""

    number: int
    body: dict[str, Any]
    cancel: bool
    repeat: bool
    watch: bool

    def expected(self) -> str:
        """What the echo engine says."""
        return " ".join(self.body["prompt"].split()[: self.body["max_tokens"]])


@dataclass(frozen=True)
class Fault:
    """What happens `after` so many seconds since the one before; `amount` in 0..1 sizes it."""

    kind: str
    after: float
    amount: float
    choice: float


@dataclass(frozen=True)
class Plan:
    """The jobs and the faults of a seed."""

    seed: int
    specs: list[Spec]
    faults: list[Fault] = field(default_factory=list)


def make(seed: int, jobs: int, shares: dict[str, int], pause: float = 5.0) -> Plan:
    """The plan for a seed; `pause` is the longest time between two faults."""
    rng = random.Random(seed)
    specs = [_spec(rng, number) for number in range(jobs)]
    kinds = [kind for kind, count in shares.items() for _ in range(count)]
    rng.shuffle(kinds)
    faults = [Fault(kind, rng.uniform(0.3, pause), rng.random(), rng.random()) for kind in kinds]
    return Plan(seed, specs, faults)


def flood(seed: int, first: int, count: int) -> list[Spec]:
    """Jobs beside the plan's own, with which a fault fills the queue."""
    rng = random.Random(f"{seed} flood {first}")
    return [_spec(rng, first + number) for number in range(count)]


def _spec(rng: random.Random, number: int) -> Spec:
    # One in ten is one of a few shared prompts: hits and joins.
    shared = rng.random() < 0.1
    words = 12 if shared else rng.randint(5, 40)
    name = f"shared{rng.randrange(20)}" if shared else f"job{number}"
    body: dict[str, Any] = {
        "prompt": " ".join(f"{name}w{i}" for i in range(words)),
        "max_tokens": 12 if shared else rng.randint(4, 40),
        "priority": rng.choice(["high", "default", "default", "low"]),
        "cache": shared or rng.random() < 0.5,
    }
    if rng.random() < 0.03:
        body["ttl_seconds"] = round(rng.uniform(0.2, 5), 3)
    return Spec(number, body, rng.random() < 0.04, rng.random() < 0.1, rng.random() < 0.3)
