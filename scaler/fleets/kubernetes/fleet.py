"""Workers as pods: makes them, tells them to go, and sees them end."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from promptq.contract.errors import SettingsError
from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import Exit, FleetCapabilities, Start
from scaler.fleets.kubernetes.api import ApiTrouble
from scaler.fleets.kubernetes.member import Member, to_replace
from scaler.fleets.kubernetes.pod_cache import PodCache
from scaler.fleets.kubernetes.pods import TEMPLATE_LABEL, Pod, PodState, end_of_vanished, read
from scaler.fleets.kubernetes.requests import Pods, Requests
from scaler.fleets.kubernetes.template import GRACE_SECONDS, Making, Manifest, manifest, read_template
from scaler.fleets.launch import Launch
from scaler.fleets.starts import Starts

log = logging.getLogger(__name__)

COMPARE_SECONDS: Final = 15.0
"""How often the template is read again."""
NODE_SECONDS: Final = 30.0
"""What a node may take beyond the grace period to end a pod, before the pod is deleted without it."""
LIST_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class KubernetesFleetSettings:
    """How pods are made. Durations are in seconds.

    Attributes:
        fleet: the Deployment that owns the pods; a label of theirs has its name.
        template: the file of a worker's pod.
        max_workers: units of room, of each resource that `rooms` does not name.
        pools: how those of a pool are made that differ from the usual.
    """

    fleet: str
    template: Path
    max_workers: int
    gpu_resource: str = "nvidia.com/gpu"
    drain_seconds: float = 30
    start_timeout_seconds: float = 600
    rooms: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, Launch] = field(default_factory=dict)


class KubernetesFleet:
    """A `Fleet` of pods. They outlive this process: the next scaler takes over those that are there.

    Args:
        list_seconds: how long a new leader waits for the first list of pods.
    """

    def __init__(self, settings: KubernetesFleetSettings, api: Pods, list_seconds: float = LIST_SECONDS) -> None:
        self.settings = settings
        self._list_seconds = list_seconds
        self._compare_at = 0.0
        self.capabilities = FleetCapabilities(sees_exits=True, outlives=True)
        self._api = api
        self._cache = PodCache(api)
        self._starts: defaultdict[str, Starts] = defaultdict(Starts)
        self._forget()

    def take_over(self, now: float) -> None:
        """Find the pods that there are. Until the API server has listed them, none is made."""
        self._cache.close()
        self._cache = PodCache(self._api)
        self._forget()
        self._cache.start()
        self._cache.synced.wait(self._list_seconds)
        self._look(now)

    def close(self) -> None:
        """Follow the pods no more."""
        self._cache.close()

    def trouble(self, pool: str) -> str:
        """Why workers of this pool do not start: a crash, what hinders a pod that starts, or the API server."""
        starting = (one for one in self._of(pool) if one.registered_at is None)
        hindered = next((f"{one.name}: {one.pod.trouble}" for one in starting if one.pod and one.pod.trouble), "")
        return self._starts[pool].trouble or hindered or self._requests.trouble or self._cache.trouble

    def backs_off(self, pool: str) -> bool:
        """Whether a crash, or the API server, keeps workers of this pool from starting as wanted."""
        return self._starts[pool].backs_off or self._requests.backs_off

    def retry_in(self, pool: str, now: float) -> float | None:
        """Seconds until the next try, or None when nothing waits for it."""
        waits = [self._starts[pool].backoff.retry_in(now), self._requests.retry_in(now)]
        return max((wait for wait in waits if wait is not None), default=None)

    def roster(self) -> list[WorkerRecord]:
        """Every worker whose pod is there: starting, idle, busy or draining."""
        return [member.as_record for member in self._members.values()]

    def spawn(self, count: int, pool: str, now: float) -> int:
        """Make up to `count` pods: fewer where there is no room, after crashes, or where the API server refuses."""
        launch = self._launch(pool)
        room = min(count, self._room(launch.resource) // launch.units) if launch.units else count
        starting = sum(member.state == "starting" for member in self._of(pool))
        limits = [self._starts[pool].backoff.room(starting, now), self._requests.room(now)]
        wanted = min([room, *(limit for limit in limits if limit is not None)])
        return self._make(max(0, wanted), pool, launch, now)

    def retire(self, names: Sequence[str], now: float) -> None:
        """Delete their pods: SIGTERM, and the grace period to drain. Those that have ended are passed over."""
        for member in (self._members[name] for name in names if name in self._members):
            if not (member.retired or member.sentence):
                member.retired = True
                member.force_at = self._latest_end(now)
                self._requests.want_deleted(member.name, None)
        self._requests.delete(now)

    def retire_all(self, now: float) -> None:
        """Retire every worker."""
        self.retire(list(self._members), now)

    def kill(self) -> None:
        """End every worker without a drain: asked for at the next `poll`, since no signal handler may use the API."""
        for member in self._members.values():
            member.sentence = member.sentence or "killed"
            self._requests.want_deleted(member.name, 0)

    def poll(self, now: float) -> list[Exit]:
        """Workers that have ended since the last call. Takes over pods that another scaler made."""
        states, gone = self._look(now)
        exits = [self._close(name, states.get(name), gone.get(name), now) for name in list(self._members)]
        self._force(now)
        self._requests.delete(now)
        return [end for end in exits if end]

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[Start]:
        """Take in who is registered; ends who never came, or went silent. Tells who is new."""
        records = {record.name: record for record in registered}
        fresh = []
        for member in self._members.values():
            if member.take_in(records.get(member.name), now):
                self._starts[member.pool].registered()
                fresh.append(member)
            if member.is_stable(now):
                self._starts[member.pool].proved(member.spawned_at)
            if fault := member.fault(now, self.settings.start_timeout_seconds):
                self._end(member, fault, now)
        self._requests.delete(now)
        return [Start(member.pool, now - member.spawned_at) for member in fresh if not member.adopted]

    def pause_clocks(self, now: float) -> None:
        """Redis cannot be read, so nobody can register: this time counts against no worker."""
        for member in self._members.values():
            member.missing_since = None
            if member.registered_at is None:
                member.awaited_since = now

    def prepare(self, _wanted: int, now: float) -> None:
        """Replace pods of an older template, one of a pool at a time. A node that has the image is what makes a start
        quick, and that is the cluster's."""
        if now < self._compare_at:
            return
        self._compare_at = now + COMPARE_SECONDS
        for pool in {member.pool for member in self._members.values()} & self.settings.pools.keys():
            self._replace_old(pool, now)

    def _of(self, pool: str) -> list[Member]:
        return [member for member in self._members.values() if member.pool == pool]

    def _launch(self, pool: str) -> Launch:
        return self.settings.pools.get(pool, Launch(gpus=0))

    def _room(self, resource: str) -> int:
        """Units that nobody takes; who drains takes his still."""
        launches = [self._launch(member.pool) for member in self._members.values()]
        taken = sum(launch.units for launch in launches if launch.resource == resource)
        return max(0, self.settings.rooms.get(resource, self.settings.max_workers) - taken)

    def _make(self, count: int, pool: str, launch: Launch, now: float) -> int:
        """Make pods until one is refused. Tells how many were made; none before those that there are are known."""
        if not (count and self._has_looked):
            return 0
        done = 0
        try:
            pod = self._manifest(pool, launch)
            while done < count and (made := self._requests.make(pod, now)) is not None:
                self._join(made, pool, now)
                done += 1
        except (ApiTrouble, SettingsError) as error:
            log.warning("%s: %s", pool, error)
            self._starts[pool].refused(str(error), now)
        return done

    def _join(self, made: Pod, pool: str, now: float) -> None:
        state = read(made)
        self._cache.put(made)
        self._members[state.name] = Member(state.name, pool, now, now, pod=state)
        log.info("Made the pod %s of %s.", state.name, pool)

    def _manifest(self, pool: str, launch: Launch) -> Manifest:
        settings = self.settings
        environment = {"PROMPTQ_DRAIN_SECONDS": f"{settings.drain_seconds:g}"} | dict(launch.environment)
        making = Making(
            settings.fleet, pool, environment, settings.drain_seconds, launch.gpus, settings.gpu_resource,
            launch.command, launch.resources,
        )  # fmt: skip
        return manifest(read_template(settings.template, pool), making)

    def _replace_old(self, pool: str, now: float) -> None:
        try:
            template = self._manifest(pool, self._launch(pool))["metadata"]["labels"][TEMPLATE_LABEL]
        except SettingsError as error:
            log.warning("%s: its workers stay as they are: %s", pool, error)
            return
        if names := to_replace(self._of(pool), template):
            log.info("%s: the template has changed; %s will be replaced.", pool, ", ".join(names))
            self.retire(names, now)

    def _forget(self) -> None:
        self._compare_at = 0.0
        self._members: dict[str, Member] = {}
        self._requests = Requests(self._api)
        self._told: set[str] = set()
        self._has_looked = False

    def _look(self, now: float) -> tuple[dict[str, PodState], dict[str, Pod]]:
        """The pods there are, each one's member with its state; and those that have gone."""
        is_synced = self._cache.synced.is_set()
        pods, gone = self._cache.read()
        states = {name: read(pod) for name, pod in pods.items()}
        self._told &= states.keys()
        for state in states.values():
            self._see(state, now)
        self._has_looked = is_synced
        return states, gone

    def _see(self, state: PodState, now: float) -> None:
        if state.name not in self._members and state.name not in self._told:
            log.info("Took over the pod %s of %s.", state.name, state.pool)
            told = state.is_leaving  # by the last leader, most likely
            self._members[state.name] = Member(state.name, state.pool, now, now, adopted=True, retired=told)
        if (member := self._members.get(state.name)) is not None:
            member.pod = state
            if state.is_leaving and member.force_at is None:
                member.force_at = self._latest_end(now)

    def _latest_end(self, now: float) -> float:
        """When a pod that is told to end now has gone, if its node is there."""
        return now + self.settings.drain_seconds + GRACE_SECONDS + NODE_SECONDS

    def _close(self, name: str, state: PodState | None, gone: Pod | None, now: float) -> Exit | None:
        """How a member has ended, once it has; its pod, if it is still there, is not needed any more."""
        member = self._members[name]
        end = end_of_vanished(gone) if gone else state.end if state else None
        if end is None:
            return None
        del self._members[name]
        if gone is None:
            self._told.add(name)
            self._requests.want_deleted(name, 0)
        else:
            self._requests.has_gone(name)
        found = member.exit(end)
        self._judge(member, found, now)
        return found

    def _judge(self, member: Member, end: Exit, now: float) -> None:
        if end.reason == "retired":
            log.info("%s has ended (retired).", end.name)
            return
        log.warning("%s", end)
        self._starts[member.pool].ended(end, member.is_stable(now), now)

    def _end(self, member: Member, sentence: str, now: float) -> None:
        """Let its node kill it; where the node is silent too, the pod is deleted without it."""
        member.sentence = sentence
        member.force_at = now + NODE_SECONDS
        self._requests.want_deleted(member.name, 1)

    def _force(self, now: float) -> None:
        for member in self._members.values():
            if member.force_at is not None and now >= member.force_at:
                if member.retired:
                    member.sentence = member.sentence or "drain_timeout"
                self._requests.want_deleted(member.name, 0)
                member.force_at = now + NODE_SECONDS
