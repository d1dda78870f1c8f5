"""Workers of the queues beside ours: `python -m benchmarks.queue_workers rq|bare URL [SIZE]`, until they are killed."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

CLAIM = """
local claimed = {}
for _, id in ipairs(redis.call('LPOP', 'bare:queue', ARGV[1]) or {}) do
  redis.call('HSET', 'bare:job:' .. id, 'status', 'started', 'started_at', ARGV[2])
  redis.call('ZADD', 'bare:leases', ARGV[2] + 15, id)
  claimed[#claimed + 1] = {id, redis.call('HGET', 'bare:job:' .. id, 'data')}
end
return claimed
"""
FINISH = """
for i = 1, #ARGV, 2 do
  if redis.call('ZREM', 'bare:leases', ARGV[i]) == 1 then
    redis.call('HSET', 'bare:job:' .. ARGV[i], 'status', 'finished', 'result', ARGV[i + 1])
    redis.call('EXPIRE', 'bare:job:' .. ARGV[i], 3600)
    redis.call('INCR', 'bare:done')
  end
end
"""


def nothing(prompt: str) -> dict[str, Any]:
    """The work: the prompt comes back, as from our echo engine."""
    return {"text": prompt, "finish_reason": "stop"}


def rq(client: redis.Redis) -> None:
    """RQ's own loop."""
    SimpleWorker(["stock"], connection=client, serializer=JSONSerializer).work(logging_level="ERROR")


def bare(client: redis.Redis, size: int) -> None:
    """Claim, work, finish, with nothing else."""
    claim, finish = client.register_script(CLAIM), client.register_script(FINISH)
    while True:
        rows: Any = claim(args=[size, time.time()])
        if not rows:
            time.sleep(0.02)
            continue
        results = [value for job_id, data in rows for value in (job_id, json.dumps(nothing(**json.loads(data))))]
        finish(args=results)


def main() -> None:
    """Work."""
    kind, url, *rest = sys.argv[1:]
    client = redis.Redis.from_url(url)
    rq(client) if kind == "rq" else bare(client, int(rest[0]))


if __name__ == "__main__":
    main()
