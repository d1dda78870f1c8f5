-- Take back what dead workers held, expire what waited too long, and trim what RQ leaves behind.
-- ARGV: now, iso, result_ttl, failure_ttl, wip cutoff, max_attempts, at most, worker_lost exc_string, expired exc_string.
-- Reply: {requeued, worker_lost, cancelled, expired}
insist()
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], result_ttl = ARGV[3], failure_ttl = ARGV[4]}
local requeued, lost, cancelled, expired = 0, 0, 0, 0

local function redeliver(id, queue)
  local attempts, cancel = unpack(call('HMGET', JOB .. id, 'attempts', 'cancel_requested'))
  call('HINCRBY', TOTALS, 'lease_expiries', 1)
  if cancel then
    cancelled = cancelled + 1
    settle(id, queue, 'cancelled', at, {})
    leave(id)
  elseif tonumber(attempts or 0) >= tonumber(ARGV[6]) then
    lost = lost + 1
    settle(id, queue, 'failed', at, {error_type = 'worker_lost', exc_string = ARGV[8],
      error_message = 'The worker was lost in each of ' .. attempts .. ' attempts.'})
    leave(id)
  else
    requeued = requeued + 1
    call('HINCRBY', TOTALS, 'requeued:worker_lost', 1)
    to_front(id, queue)
  end
end

for _, queue in ipairs(QUEUE_ORDER) do
  for _, member in ipairs(call('ZREVRANGEBYSCORE', WIP .. queue, ARGV[5], '-inf', 'LIMIT', 0, ARGV[7])) do
    call('ZREM', WIP .. queue, member)
    local id = string.match(member, '^(.*):')
    if call('HGET', JOB .. id, 'status') == 'started' then redeliver(id, queue) else leave(id) end
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
  local status, queue = unpack(call('HMGET', JOB .. id, 'status', 'origin'))
  call('ZREM', EXPIRY, id)
  if status == 'queued' or status == 'deferred' then
    expired = expired + 1
    call('LREM', QUEUE .. queue, 1, id)
    call('ZREM', DEFERRED .. queue, id)
    expire(id, queue, at, ARGV[9])
  end
end
return {requeued, lost, cancelled, expired}
