-- Take back what dead workers held, expire what waited too long, and trim what RQ leaves behind.
-- ARGV: now, iso, result_ttl, failure_ttl, wip cutoff, max_attempts, at most, worker_lost exc_string,
--       expired exc_string.
-- Reply: {requeued, worker_lost, cancelled, expired}
insist()
local at = moment(unpack(ARGV, 1, 4))
local done = {requeued = 0, worker_lost = 0, cancelled = 0, expired = 0}

for _, queue in ipairs(QUEUE_ORDER) do
  for _, member in ipairs(call('ZREVRANGEBYSCORE', WIP .. queue, ARGV[5], '-inf', 'LIMIT', 0, ARGV[7])) do
    call('ZREM', WIP .. queue, member)
    local job = read(string.match(member, '^(.*):'), queue)
    if job.status == 'started' then
      call('HINCRBY', TOTALS, 'lease_expiries', 1)
      local outcome = redeliver(job, at, ARGV[6], ARGV[8])
      done[outcome] = done[outcome] + 1
    else
      leave(job)
    end
  end
  for _, id in ipairs(call('ZRANGE', DEFERRED .. queue, 0, ARGV[7])) do
    local cache_key = call('HGET', JOB .. id, 'cache_key')
    if cache_key then leader(cache_key) end
  end
  for _, registry in ipairs({FINISHED, FAILED, CANCELED}) do
    call('ZREMRANGEBYSCORE', registry .. queue, '-inf', at.now)
  end
end

for _, id in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', at.now, 'LIMIT', 0, ARGV[7])) do
  local job = read(id)
  call('ZREM', EXPIRY, id)
  if job.status == 'queued' or job.status == 'deferred' then
    done.expired = done.expired + 1
    call('LREM', QUEUE .. job.queue, 1, id)
    call('ZREM', DEFERRED .. job.queue, id)
    expire(job, at, ARGV[9])
  end
end
conclude(at)
return {done.requeued, done.worker_lost, done.cancelled, done.expired}
