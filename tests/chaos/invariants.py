"""What holds at the end of every run, whatever was killed in it: each law by its name.

A harness gathers `Facts` and asks `check`; a law of which it gathered nothing has nothing to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from promptq.contract.keys import PROGRESS_SECONDS
from promptq.contract.queues import PRIORITIES
from tests.chaos.census import census
from tests.chaos.facts import TERMINAL, Facts, JobFact
from tests.fakes import keys

Law = Callable[[Facts], Iterator[str]]
INVARIANTS: Final[dict[str, Law]] = {}
"""By name; a line that one gives is one breach."""

ENDS: Final = ("succeeded", "failed", "cancelled", "expired")
UNTIL_DELETED: Final = tuple(
    key.start for key in (
        keys.queue_names, keys.totals, keys.model_totals, keys.workers, keys.workers_of, keys.format, keys.finished,
        keys.failed, keys.canceled, keys.file, keys.files, keys.file_expiry, keys.batches, keys.webhook_owners,
        keys.webhook, keys.webhooks, keys.webhooks_active, keys.deliveries, keys.delivery_order, keys.deliveries_ended,
        keys.outbox,
    )
)  # fmt: skip
"""Keys that have no lifetime of their own: permanent ones, those whose entries are trimmed, and what users delete."""


def law(function: Law) -> Law:
    """One of them."""
    INVARIANTS[function.__name__] = function
    return function


def check(facts: Facts, names: Collection[str] = INVARIANTS.keys()) -> dict[str, list[str]]:
    """The breaches of these laws, by law; those that hold are left out."""
    found = {name: list(INVARIANTS[name](facts)) for name in INVARIANTS if name in names}
    return {name: lines for name, lines in found.items() if lines}


# Jobs.


@law
def one_place(facts: Facts) -> Iterator[str]:
    """Each job is in exactly one list or registry, the one that its status says. True at every moment."""
    yield from census(facts.store.client)


@law
def nothing_lost(facts: Facts) -> Iterator[str]:
    """Each job that a client was told is taken is there."""
    yield from (f"{_name(job)} is gone" for job in _gone(facts) if not facts.excuse(job.acknowledged_at))


@law
def one_job_a_key(facts: Facts) -> Iterator[str]:
    """Whoever repeats a submit under its key gets the job that the first one made."""
    for job in facts.jobs:
        if len(set(job.ids)) > 1 and not facts.excuse(job.acknowledged_at):
            yield f"{job.name} was made more than once: {job.ids}"


@law
def every_job_ends(facts: Facts) -> Iterator[str]:
    """Each job has ended, well, or as the run allows."""
    for job in _found(facts):
        if job.status not in TERMINAL:
            yield f"{_name(job)} is stuck: {job.status}"
        elif job.error and job.error not in facts.errors:
            yield f"{_name(job)} failed: {job.error}"


@law
def ends_once(facts: Facts) -> Iterator[str]:
    """Nothing of a job changes after a client saw it end."""
    for job in _found(facts):
        changed = job.seen is not None and job.seen != job.now
        if changed and not (facts.excuse(job.seen_at) or facts.excuse(job.finished_at)):
            yield f"{_name(job)} has changed after its end: {job.seen} → {job.now}"


@law
def one_result(facts: Facts) -> Iterator[str]:
    """One result each, stored by the worker that claimed the job last: nothing from one that was fenced off."""
    client = facts.store.client
    for job in _found(facts):
        entries = client.xrange(keys.results(job.id))
        if job.status in TERMINAL and len(entries) != 1:
            yield f"{_name(job)} has {len(entries)} results"
        holder = client.hget(keys.job(job.id), "worker_name")
        if entries and job.ran and job.status == "succeeded" and entries[0][1][b"worker_name"] != holder:
            yield f"{_name(job)} was ended by {entries[0][1][b'worker_name']!r}, and last claimed by {holder!r}"


@law
def right_text(facts: Facts) -> Iterator[str]:
    """The text is what an undisturbed run generates; that of a cancelled job, how that begins."""
    for job in _found(facts):
        if job.text is None or job.expected is None or job.text == job.expected:
            continue
        if job.status != "cancelled" or not job.expected.startswith(job.text):
            yield f"{_name(job)} has another text: {job.text!r}, not {job.expected!r}"


@law
def readers_see_it_whole(facts: Facts) -> Iterator[str]:
    """Who reads a text as it comes, and goes on where a connection broke, sees no gap and no repeat."""
    yield from (f"{_name(job)}, read as it came: {line}" for job in facts.jobs for line in job.reading)


@law
def attempts_within_bound(facts: Facts) -> Iterator[str]:
    """What a drain or a preemption interrupts has had no attempt; a crash costs one."""
    for job in _found(facts) if facts.most_attempts is not None else ():
        if job.attempts > (facts.most_attempts or 0):
            yield f"{_name(job)} has had {job.attempts} attempts"


# What a run leaves.


@law
def nothing_runs(facts: Facts) -> Iterator[str]:
    """No queue, no lease of a job, nothing that joined another, no group, no deadline is left."""
    kinds = (keys.wip, keys.deferred, keys.queue, keys.start_tags, keys.finish_tags)
    names = [kind(queue) for queue in PRIORITIES for kind in kinds] + [keys.groups(), keys.expiry()]
    yield from (f"{name} is left" for name in names if facts.store.client.exists(name))


@law
def every_key_ends(facts: Facts) -> Iterator[str]:
    """No key without a lifetime but those that are bounded, or the user's to delete."""
    for name in facts.store.client.scan_iter(count=1000):
        if facts.store.client.ttl(name) == -1 and not name.decode().startswith(UNTIL_DELETED):
            yield f"{name.decode()} has no lifetime"


@law
def progress_ends(facts: Facts) -> Iterator[str]:
    """What a job generated on its way goes a minute after its end."""
    for name in facts.store.client.scan_iter(match=keys.progress("*"), count=1000):
        if not 0 <= facts.store.client.ttl(name) <= PROGRESS_SECONDS:
            yield f"{name.decode()} stays for {facts.store.client.ttl(name)} s"


@law
def nobody_is_left(facts: Facts) -> Iterator[str]:
    """Behind programs that ended in order no worker is registered for good, and nobody holds a batch or deliveries."""
    if facts.stopped:
        client = facts.store.client
        yield from (
            f"{name.decode()} is registered" for name in client.smembers(keys.workers()) if client.ttl(name) == -1
        )
        yield from (f"{name.decode()} is held" for name in client.scan_iter(match=keys.lease("*"), count=1000))


# Counts.


@law
def totals_agree(facts: Facts) -> Iterator[str]:
    """As many ends as submits, and one job for each key."""
    totals = _numbers(facts.store.client.hgetall(keys.totals()))
    submitted, ended = totals.get("submitted", 0), sum(totals.get(state, 0) for state in ENDS)
    if submitted != ended:
        yield f"{submitted} submitted, but {ended} ended: {totals}"
    hashes = sum(1 for _ in facts.store.client.scan_iter(match=keys.job("*"), count=1000))
    if facts.submits is not None and hashes > facts.submits:
        yield f"{hashes} jobs for {facts.submits} submits"


@law
def usage_agrees(facts: Facts) -> Iterator[str]:
    """The usage of all keys and days adds up to the totals."""
    client = facts.store.client
    totals, used = _numbers(client.hgetall(keys.totals())), Counter[str]()
    for name in client.scan_iter(match=keys.usage("*"), count=1000):
        for count, amount in _numbers(client.hgetall(name)).items():
            used[count.partition(":")[0]] += amount
    for state in ENDS:
        if used[state] != totals.get(state, 0):
            yield f"{totals.get(state, 0)} {state}, but {used[state]} in the usage"


# Batches and files.


@law
def every_line_once(facts: Facts) -> Iterator[str]:
    """Each line of a batch is exactly once in its output or its error file."""
    for batch in facts.batches:
        seen, wanted = batch.seen, set(batch.wanted)
        lines = wanted | set(seen)
        yield from (f"{batch.id} {line}: {seen[line]} times" for line in lines if seen[line] != (line in wanted))


@law
def lines_have_their_own_answer(facts: Facts) -> Iterator[str]:
    """An answer is that to its own line."""
    for batch in facts.batches:
        for entry in batch.answered:
            text = entry["response"]["body"]["choices"][0]["message"]["content"]
            if text != batch.expected(entry["custom_id"]):
                yield f"{batch.id} {entry['custom_id']}: {text!r}"


@law
def batches_complete(facts: Facts) -> Iterator[str]:
    """Each batch is completed, with the counts that its files have, and no line has failed."""
    for batch in facts.batches:
        counts = {"total": len(batch.wanted), "completed": len(batch.answered), "failed": len(batch.failed)}
        if batch.status != "completed" or dict(batch.counts) != counts or batch.failed:
            yield f"{batch.id}: {batch.status}, {dict(batch.counts)}, files have {counts}"


@law
def no_stray_object(facts: Facts) -> Iterator[str]:
    """The storage has no part of a batch that has ended, and no file that nothing will delete in time."""
    if facts.storage is None:
        return
    yield from (f"parts of {name} are left" for name in facts.storage.names("batches"))
    client = facts.store.client
    for name in facts.storage.names("files"):
        file_id = name.partition(".")[0]
        if not client.exists(keys.file(file_id)) and client.zscore(keys.file_expiry(), file_id) is None:
            yield f"the file {name} has no record"


# Events.


@law
def everyone_is_told(facts: Facts) -> Iterator[str]:
    """Each end that somebody asked to be told of is delivered at least once, and the outbox is empty."""
    yield from (f"nobody was told of {one}" for one in facts.told if not facts.events.get(one))
    if left := facts.store.client.xlen(keys.outbox()):
        yield f"{left} ends are in the outbox"


@law
def one_event_an_end(facts: Facts) -> Iterator[str]:
    """However often an end is told, it is told under one id."""
    yield from (f"{one} has the events {set(ids)}" for one, ids in facts.events.items() if len(set(ids)) > 1)


# The witness.


@law
def little_is_generated_twice(facts: Facts) -> Iterator[str]:
    """Of a job, at most what a worker had not kept when it crashed is generated again; nothing at a drain."""
    for job_id, doubled in (facts.witness.doubled_by_job if facts.witness else {}).items():
        if doubled > facts.most_doubled:
            yield f"{job_id}: {doubled} tokens were generated twice, {facts.most_doubled} may be"


@law
def nothing_is_skipped(facts: Facts) -> Iterator[str]:
    """A job that goes on elsewhere goes on behind what was kept: some worker has generated each of its tokens."""
    if facts.witness:
        for job in facts.jobs:
            if gaps := facts.witness.gaps(job.id):
                yield f"{_name(job)}: nobody generated the tokens {gaps}"


def _found(facts: Facts) -> Iterator[JobFact]:
    return (job for job in facts.jobs if job.status)


def _gone(facts: Facts) -> Iterator[JobFact]:
    return (job for job in facts.jobs if not job.status)


def _name(job: JobFact) -> str:
    return f"{job.name} {job.id}"


def _numbers(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in fields.items()}
