"""Where all jobs are, in one look."""

from __future__ import annotations

from typing import Final

import redis

CENSUS: Final = """
local jobs, places = {}, {}
local function put(id, place) places[#places + 1] = id; places[#places + 1] = place end
for _, key in ipairs(redis.call('KEYS', 'rq:job:*')) do
  jobs[#jobs + 1] = string.sub(key, 8); jobs[#jobs + 1] = redis.call('HGET', key, 'status') or ''
end
for _, queue in ipairs({'high', 'default', 'low'}) do
  for _, id in ipairs(redis.call('LRANGE', 'rq:queue:' .. queue, 0, -1)) do put(id, 'queued') end
  for _, id in ipairs(redis.call('ZRANGE', 'rq:wip:' .. queue, 0, -1)) do put(string.match(id, '^(.*):'), 'started') end
  for _, place in ipairs({'deferred', 'finished', 'failed', 'canceled'}) do
    for _, id in ipairs(redis.call('ZRANGE', 'rq:' .. place .. ':' .. queue, 0, -1)) do put(id, place) end
  end
end
return {jobs, places}
"""
"""Replies the jobs with their status, and the places with what is in them."""


def census(client: redis.Redis) -> list[str]:
    """One atomic look: each job that is not in exactly one place, the one that its status says."""
    jobs, places = client.eval(CENSUS, 0)
    found: dict[bytes, list[bytes]] = {}
    for job_id, place in zip(places[::2], places[1::2], strict=True):
        found.setdefault(job_id, []).append(place)
    return [
        f"{job_id.decode()} is {state.decode()} and in {[p.decode() for p in found.get(job_id, [])]}"
        for job_id, state in zip(jobs[::2], jobs[1::2], strict=True)
        if found.get(job_id) != [state]
    ]
