"""Does what the plan says to the processes, and remembers when."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import redis

from promptq.contract.queues import PRIORITIES
from promptq.contract.settings import DEFAULT_MODEL
from tests.chaos.clients import Crowd
from tests.chaos.plan import LEASE_SECONDS, Fault
from tests.chaos.stack import Stack, pause, send
from tests.fakes import keys

REDIS_DOWN_SECONDS = 4.0
DISK_FULL_SECONDS = 5.0
SILENCE_SECONDS = 6.0
"""Within so many everybody has found that his connections are dead, and made others."""
MODELS = ("echo", DEFAULT_MODEL)
STEPS = (20.0, -20.0, 700.0, -700.0, 0.0)
"""Seconds that a clock is then ahead."""
EVICTED = {
    "queues": [keys.queue(queue) for queue in PRIORITIES], "leases": [keys.wip(queue) for queue in PRIORITIES],
    "joined": [keys.deferred(queue) for queue in PRIORITIES], "groups": [keys.groups()], "deadlines": [keys.expiry()],
    "workers": [keys.workers(), *map(keys.workers_of, PRIORITIES)], "cache": [keys.cache_new(), keys.cache_old()],
    "figures": [keys.fleet(), *(figure(model) for figure in (keys.drain_rate, keys.turn) for model in MODELS)],
}  # fmt: skip
"""What a server that evicts takes: not jobs and their results, which nothing could bring back."""
PATIENCE_SECONDS = 60.0


@dataclass
class Recovery:
    """A killed worker's jobs: how many, until when they were taken back, and when all had begun anew or ended."""

    jobs: int
    killed_at: float
    taken_back: float = 0.0
    begun_again: float = 0.0
    disturbed: bool = False


class Injector(threading.Thread):
    """Works through the faults of a plan."""

    def __init__(self, stack: Stack, faults: list[Fault], crowd: Crowd) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []
        self.scaler_faults: list[float] = []
        self.recoveries: list[Recovery] = []
        self._stack = stack
        self._crowd = crowd
        self._faults = faults
        self._watches: list[threading.Thread] = []

    def run(self) -> None:
        """One fault after the other, each at its moment."""
        for fault in self._faults:
            time.sleep(fault.after)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not self._inject(fault) and time.monotonic() < deadline:
                time.sleep(0.1)
        for watch in self._watches:
            watch.join()

    def _inject(self, fault: Fault) -> bool:
        what, whom = fault.kind.split(" ", 1)
        handler: Callable[[Fault], bool] = getattr(self, f"_{what}_{whom.replace(' ', '_')}")
        injected = handler(fault)
        self.done[fault.kind] += injected
        return injected

    # Workers.

    def _kill_worker(self, fault: Fault) -> bool:
        victim = self._worker(fault)
        if victim is None:
            return False
        held = self._held(victim[1])
        if not send(victim[0], signal.SIGKILL):
            return False
        recovery = Recovery(len(held), time.time())
        watch = threading.Thread(target=self._watch, args=(recovery, held), daemon=True)
        watch.start()
        self._watches.append(watch)
        return True

    def _pause_worker(self, fault: Fault) -> bool:
        victim = self._worker(fault)
        return victim is not None and pause(victim[0], LEASE_SECONDS * (1.2 + 1.5 * fault.amount))

    def _drain_worker(self, fault: Fault) -> bool:
        victim = self._worker(fault)
        return victim is not None and send(victim[0], signal.SIGTERM)

    def _worker(self, fault: Fault) -> tuple[int, str] | None:
        """A worker that is registered, so it may hold something; of several the plan chooses."""
        with contextlib.suppress(redis.RedisError), self._stack.client as client:
            registered = {key.decode().removeprefix(keys.worker()) for key in client.smembers(keys.workers())}
            live = sorted((name, pid) for pid, name in self._stack.workers().items() if name in registered)
            if live:
                name, pid = live[int(fault.choice * len(live))]
                return pid, name
        return None

    def _held(self, worker: str) -> dict[bytes, str]:
        """The worker's members of rq:wip, each with its queue."""
        held: dict[bytes, str] = {}
        with contextlib.suppress(redis.RedisError), self._stack.client as client:
            for queue in PRIORITIES:
                for member in client.zrange(keys.wip(queue), 0, -1):
                    job_id = member.rsplit(b":", 1)[0].decode()
                    if client.hget(keys.job(job_id), "worker_name") == worker.encode():
                        held[member] = queue
        return held

    def _watch(self, recovery: Recovery, held: dict[bytes, str]) -> None:
        """Until the dead worker's claims are gone, and its jobs run again or have ended."""
        leased, waiting = dict(held), {member.rsplit(b":", 1)[0].decode() for member in held}
        with self._stack.client as client:
            while (leased or waiting) and time.time() < recovery.killed_at + PATIENCE_SECONDS:
                with contextlib.suppress(redis.RedisError):
                    leased = {m: q for m, q in leased.items() if client.zscore(keys.wip(q), m) is not None}
                    gone = {m.rsplit(b":", 1)[0].decode() for m in held.keys() - leased.keys()}
                    waiting -= {job for job in gone & waiting if client.hget(keys.job(job), "status") != b"queued"}
                now = time.time() - recovery.killed_at
                recovery.taken_back = recovery.taken_back or (0 if leased else now)
                time.sleep(0.02)
        recovery.begun_again = time.time() - recovery.killed_at
        recovery.taken_back = recovery.taken_back or recovery.begun_again
        recovery.disturbed = self._was_disturbed(recovery)
        self.recoveries.append(recovery)

    def _was_disturbed(self, recovery: Recovery) -> bool:
        """Whether Redis or the reaper was away meanwhile, or had just been."""
        since, until = recovery.killed_at - LEASE_SECONDS - 3, recovery.killed_at + recovery.taken_back
        away = any(begin < until and end > since for begin, end in self.outages)
        return away or any(since < at < until for at in self.scaler_faults)

    # The others.

    def _kill_api(self, fault: Fault) -> bool:
        return send(self._stack.processes["api"].pid, signal.SIGKILL)

    def _kill_api_child(self, fault: Fault) -> bool:
        children = self._stack.api_children()
        return bool(children) and send(children[int(fault.choice * len(children))], signal.SIGKILL)

    def _pause_api(self, fault: Fault) -> bool:
        children = self._stack.api_children()
        return bool(children) and pause(children[0], LEASE_SECONDS * (1 + fault.amount))

    def _kill_scaler(self, fault: Fault) -> bool:
        self.scaler_faults.append(time.time())
        return send(self._stack.processes["scaler"].pid, signal.SIGKILL)

    def _pause_scaler(self, fault: Fault) -> bool:
        self.scaler_faults.append(time.time())
        seconds = LEASE_SECONDS * (1 + fault.amount)
        self.outages.append((time.time(), time.time() + seconds))
        return pause(self._stack.processes["scaler"].pid, seconds)

    def _kill_redis(self, fault: Fault) -> bool:
        began = time.time()
        self._stack.server.stop(kill=True)
        time.sleep(REDIS_DOWN_SECONDS * fault.amount)
        self._stack.server.start()
        self.outages.append((began, time.time()))
        return True

    def _pause_redis(self, fault: Fault) -> bool:
        assert self._stack.server.process
        seconds = LEASE_SECONDS * (1 + fault.amount)
        pause(self._stack.server.process.pid, seconds)
        self.outages.append((time.time(), time.time() + seconds))
        time.sleep(seconds)
        return True

    def _fill_queue(self, fault: Fault) -> bool:
        return self._crowd.flood()

    def _drop_connections(self, fault: Fault) -> bool:
        with contextlib.suppress(redis.RedisError), self._stack.client as client:
            client.client_kill_filter(_type="normal")
            client.client_kill_filter(_type="pubsub")
            return True
        return False

    def _silence_connections(self, fault: Fault) -> bool:
        """As a firewall does that drops: nothing passes, and nothing is closed."""
        self._stack.proxy.silence()
        self.outages.append((time.time(), time.time() + SILENCE_SECONDS))
        return True

    def _step_clock(self, fault: Fault) -> bool:
        clocks = list(self._stack.clocks.values())
        clocks[int(fault.choice * len(clocks))].set(STEPS[int(fault.amount * len(STEPS))])
        return True

    def _fill_disk(self, fault: Fault) -> bool:
        """The server's, and that of the programs' data."""
        assert self._stack.disk
        began = time.time()
        self._stack.disk.fill()
        time.sleep(DISK_FULL_SECONDS)
        self._stack.disk.free()
        if self._stack.server.process and self._stack.server.process.poll() is not None:
            self._stack.server.start()  # one that syncs always gives up
        self.outages.append((began, time.time() + 1))
        return True

    def _evict_keys(self, fault: Fault) -> bool:
        kind = list(EVICTED)[int(fault.choice * len(EVICTED))]
        with contextlib.suppress(redis.RedisError), self._stack.client as client:
            workers = client.keys(keys.worker("*")) if kind == "workers" else []
            client.delete(*EVICTED[kind], *workers)
            self._stack.evicted_at = time.monotonic()
            return True
        return False

    def _flush_scripts(self, fault: Fault) -> bool:
        with contextlib.suppress(redis.RedisError), self._stack.client as client:
            return bool(client.script_flush())
        return False
