-- Put before every script, after the key names of keys.py.
-- `at` is the moment of a transition: {now, iso, result_ttl, failure_ttl}; now in seconds, iso as RQ writes times.
local call = redis.call

local ENDINGS = {
  succeeded = {status = 'finished', registry = FINISHED, type = 1, ttl = 'result_ttl'},
  cancelled = {status = 'canceled', registry = CANCELED, type = 3, ttl = 'result_ttl'},
  failed = {status = 'failed', registry = FAILED, type = 2, ttl = 'failure_ttl'},
  expired = {status = 'failed', registry = FAILED, type = 2, ttl = 'failure_ttl'},
}

-- A full server (maxmemory) refuses a script at its first write, if that one needs memory, and later ones never. What
-- keeps or ends a job that was admitted must go on there, so such a script first writes something that needs none.
local function insist() call('PERSIST', TOTALS) end

-- Jobs that wait, over all queues, those that joined another included.
local function waiting()
  local depth = 0
  for _, name in ipairs(QUEUE_ORDER) do
    depth = depth + call('LLEN', QUEUE .. name) + call('ZCARD', DEFERRED .. name)
  end
  return depth
end

-- Refuse a job. Each one refused gets a turn of its own, one job's time after the last: told the same moment, all would
-- come back together and find room for one. Without a known drain rate there are no turns.
local function refuse(depth, bound, now)
  local rate = tonumber(call('GET', DRAIN_RATE) or '') or 0
  if rate <= 0 then return {'full', depth, ''} end
  local turn = math.max(tonumber(call('GET', TURN) or '') or 0, now + (depth - bound) / rate) + 1 / rate
  call('SET', TURN, string.format('%.3f', turn), 'EX', 600)
  return {'full', depth, string.format('%.3f', turn - now)}
end

-- Bring a job to its one terminal state. `how` may have: worker, error_type, error_message,
-- and for RQ's results stream return_value and exc_string, both encoded by the caller.
local function settle(id, queue, state, at, how)
  local ending, key, entry = ENDINGS[state], JOB .. id, {'worker_name', how.worker or ''}
  local own = tonumber(call('HGET', key, ending.ttl) or '')
  local ttl = own and own > 0 and own or tonumber(at[ending.ttl])
  call('HSET', key, 'status', ending.status, 'ended_at', at.iso)
  for _, field in ipairs({'error_type', 'error_message'}) do
    if how[field] and how[field] ~= '' then call('HSET', key, field, how[field]) end
  end
  for _, field in ipairs({'return_value', 'exc_string'}) do
    if how[field] and how[field] ~= '' then entry[#entry + 1] = field; entry[#entry + 1] = how[field] end
  end
  call('XADD', RESULTS .. id, 'MAXLEN', 10, '*', 'type', ending.type, unpack(entry))
  call('EXPIRE', key, ttl)
  call('EXPIRE', RESULTS .. id, ttl)
  call('ZADD', ending.registry .. queue, at.now + ttl, id)
  call('ZREM', EXPIRY, id)
  call('HINCRBY', TOTALS, state, 1)
  call('PUBLISH', DONE, id)
end

-- Put a job that ran, or waited on another, at the front of its queue.
local function to_front(id, queue)
  call('HSET', JOB .. id, 'status', 'queued', 'started_at', '', 'worker_name', '')
  call('LPUSH', QUEUE .. queue, id)
  call('PUBLISH', WAKE, queue)
end

-- The live job that leads a join group, or nil. A job that joined moves up when those before it have ended.
local function leader(cache_key)
  local id = call('LINDEX', JOIN .. cache_key, 0)
  while id do
    local status, queue = unpack(call('HMGET', JOB .. id, 'status', 'origin'))
    if status == 'queued' or status == 'started' then return id end
    if status == 'deferred' then
      call('ZREM', DEFERRED .. queue, id)
      call('HSET', JOB .. id, 'cache', 'miss')
      to_front(id, queue)
      return id
    end
    call('LPOP', JOIN .. cache_key)
    id = call('LINDEX', JOIN .. cache_key, 0)
  end
end

-- Take a job that ends without a text out of its join group; the next one leads.
local function leave(id)
  local cache_key = call('HGET', JOB .. id, 'cache_key')
  if cache_key then
    call('LREM', JOIN .. cache_key, 1, id)
    leader(cache_key)
  end
end

-- End a waiting job that its ttl_seconds has overtaken.
local function expire(id, queue, at, exc_string)
  settle(id, queue, 'expired', at, {error_type = 'expired', exc_string = exc_string,
    error_message = 'The job waited longer than its ttl_seconds.'})
  leave(id)
end
