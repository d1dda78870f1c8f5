"""One run: jobs that end, an operator who sends again what was given up, and what is wrong afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final

from promptq.contract.chunks import chunks
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job_webhooks import OwnWebhook
from promptq.contract.webhook_records import Endpoint, check_of, fingerprint
from promptq.contract.webhooks import EVENT_TYPES, derive_secret
from promptq.queue.deliveries import DeliveryRecords
from promptq.queue.outbox import length
from promptq.queue.records import NewJob
from promptq.queue.webhooks import WebhookRecords
from tests.fakes import failure, new_job, success
from tests.webhook_chaos.hasty_dispatcher import BOTH, INSIDE
from tests.webhook_chaos.world import PATIENCE_SECONDS, Trouble, World, patiently

AT_ONCE: Final = 20
ADDRESSES: Final = 4
HOSTS: Final = ("127.0.0.1", "127.0.0.1", "127.0.0.1", "a.test")
"""By receiver: the name that jobs call it by; the last one means the address inside at every other look-up."""
OWNERS: Final = ("ann", "bob", "closing")
"""API keys with an endpoint each. The last one's answers 410 now and then: while it is disabled it is noted nothing."""


@dataclass
class Result:
    """What came of a run."""

    report: str = ""
    wrong: list[str] = field(default_factory=list)


class Run:
    """Ends jobs, and knows who is to be told of which."""

    def __init__(self, world: World, seed: int) -> None:
        self.expected: dict[str, set[str]] = {}
        self.skippable = "closing"
        self._world = world
        self._random = random.Random(seed + 1)
        self._webhooks, self._deliveries = WebhookRecords(world.store), DeliveryRecords(world.store)
        self.endpoints: list[Endpoint] = []
        self.forbidden: list[str] = []

    def make_endpoints(self) -> None:
        """Those of the owners, and some at addresses inside, which are never told anything."""
        world = self._world
        for number, owner in enumerate(OWNERS):
            port = world.receivers[number % ADDRESSES].port
            self.endpoints.append(self._put(owner, f"we_{owner}", f"http://127.0.0.1:{port}/{owner}/"))
        inner = [f"http://{INSIDE}:{world.trap.port}/", f"http://{BOTH}:{world.trap.port}/"]
        self.forbidden = [self._put("ann", f"we_in{number}", url).id for number, url in enumerate(inner)]
        world.log.gone.add("closing")
        for number in range(ADDRESSES):
            world.sign_for(f"jobs{number}", "")
            world.log.gone.add(f"jobs{number}")

    def _put(self, owner: str, endpoint_id: str, url: str) -> Endpoint:
        secret = derive_secret(self._world.secret, endpoint_id, 1)
        self._world.log.secrets[owner] = self._world.log.secrets.get(owner) or secret
        endpoint = Endpoint(endpoint_id, owner, url, tuple(EVENT_TYPES), fingerprint=fingerprint(secret))
        assert patiently(lambda: self._webhooks.put(endpoint))
        return endpoint

    def end_jobs(self, count: int, pace: float) -> None:
        """End so many, each once."""
        for numbers in chunks(range(count), AT_ONCE):
            began = time.monotonic()
            self._end([self._job(number) for number in numbers])
            time.sleep(max(0.0, len(numbers) / pace - (time.monotonic() - began)))

    def _job(self, number: int) -> NewJob:
        job = new_job(f"p{number}", job_id=f"job-{number}", cache=False)
        if self._random.random() < 0.5:
            owner = self._random.choice(OWNERS)
            self.expected[job.id] = {owner}
            return replace(job, owner=owner)
        place = self._random.randrange(ADDRESSES)
        self.expected[job.id] = {f"jobs{place}"}
        url = f"http://{HOSTS[place]}:{self._world.receivers[place].port}/jobs{place}/?job={number}"
        return replace(job, webhook=OwnWebhook(url, (), check_of(self._world.secret, "")).encode())

    def _end(self, jobs: Sequence[NewJob]) -> None:
        store, left = self._world.store, {job.id for job in jobs}
        patiently(lambda: store.submit_many(jobs))
        while left:
            claims = patiently(lambda: store.claim("w", AT_ONCE))
            ends = [success(one) if self._random.random() < 0.8 else failure(one) for one in claims]
            stored = patiently(lambda ends=ends: store.finish("w", ends))
            left -= {claim.id for claim, done in zip(claims, stored, strict=True) if done}

    def send_again(self) -> None:
        """What an operator does: endpoints that were disabled, and events that were given up, are sent again."""
        for endpoint in chain(self._webhooks.hosts_of(""), filter(None, self._webhooks.get_many(self._ids()))):
            if endpoint.disabled:
                self._deliveries.send_again(endpoint, None)
            for delivery in self._deliveries.of(endpoint.id):
                if delivery.status == "failed":
                    self._deliveries.send_again(endpoint, delivery)

    def is_over(self) -> bool:
        """Whether nothing waits any more, but for the addresses inside, and nothing was given up."""
        hosts = [endpoint.id for endpoint in self._webhooks.hosts_of("")]
        waits = self._deliveries.waiting([*hosts, *self._ids()])
        found = chain.from_iterable(self._deliveries.of(one) for one in [*hosts, *self._ids()])
        return length(self._world.store) == 0 and not any(waits.values()) and all(d.status != "failed" for d in found)

    def _ids(self) -> list[str]:
        return [endpoint.id for endpoint in self.endpoints]

    def wrong(self) -> list[str]:
        """What is lost, or came as two, or came inside."""
        log, wrong = self._world.log, list(self._world.log.wrong)
        for subject, destinations in self.expected.items():
            missed = {one for one in destinations - {self.skippable} if not log.taken[one, subject]}
            wrong += [f"{subject} never came to {one}" for one in missed]
        wrong += [f"{subject} has {len(ids)} ids" for subject, ids in log.ids.items() if len(ids) != 1]
        if self._world.trap.connections:
            wrong.append(f"{self._world.trap.connections} connections to the address inside")
        told = {delivery.status for one in self.forbidden for delivery in self._deliveries.of(one)}
        return [*wrong, "an event was delivered inside"] if "delivered" in told else wrong

    @property
    def skipped(self) -> int:
        """Events that nobody was told of while their endpoint was disabled."""
        own = [subject for subject, whom in self.expected.items() if whom == {self.skippable}]
        return sum(not self._world.log.taken[self.skippable, subject] for subject in own)


def run(folder: Path, events: int, seed: int, every: float, pace: float, most_faults: int = 10**6) -> Result:
    """One run, with all that it starts ended."""
    world = World(folder, seed, ADDRESSES)
    trouble, began = Trouble(world, seed, every, most_faults), time.monotonic()
    closing = threading.Event()
    try:
        one = Run(world, seed)
        one.make_endpoints()
        operator = threading.Thread(target=_operate, args=(one, closing), daemon=True)
        operator.start()
        trouble.start()
        one.end_jobs(events, pace)
        while not (len(trouble.done) > 1 and _is_over(one)) and time.monotonic() < began + PATIENCE_SECONDS:
            time.sleep(0.3)
        trouble.closing.set()
        trouble.join()
        closing.set()
        operator.join()
        wrong = patiently(one.wrong) + ([] if patiently(one.is_over) else ["events wait still"])
        return Result(_report(world, one, trouble.done, time.monotonic() - began), wrong)
    finally:
        trouble.closing.set()
        closing.set()
        world.down()


def _is_over(one: Run) -> bool:
    try:
        return one.is_over()
    except RedisUnavailable:
        return False


def _operate(one: Run, closing: threading.Event) -> None:
    while not closing.wait(0.5):
        patiently(one.send_again)


def _report(world: World, one: Run, faults: Counter[str], seconds: float) -> str:
    log = world.log
    again = sum(count - 1 for count in log.taken.values() if count > 1)
    return "\n".join(
        [
            f"{len(one.expected)} events in {seconds:.0f} s, {log.moods.total()} tries that came, each verified",
            "  answered: " + ", ".join(f"{mood}: {count}" for mood, count in sorted(log.moods.items())),
            "  killed: " + ", ".join(f"{what}: {count}" for what, count in sorted(faults.items())),
            f"  taken: {len(log.taken)}, more than once: {again}, not noted while disabled: {one.skipped}, "
            f"connections inside: {world.trap.connections}",
        ]
    )
