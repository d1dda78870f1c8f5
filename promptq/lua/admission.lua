-- Put before submit.lua: one job's way in. `at` has besides: bound on waiting jobs, their depth, repeated (see `known`).
local fed, queued, admitted = {}, {}, 0

local function write(id, queue, status, fields, at)
  -- The first write must be one that a full server refuses.
  if admitted == 0 or not fed[queue] then call('SADD', QUEUE_NAMES, QUEUE .. queue) end
  -- Those who were refused did not come back: their turns are void.
  if admitted == 0 and at.depth * 2 < at.bound then call('DEL', TURN) end
  admitted = admitted + 1
  call('HSET', JOB .. id, 'status', status, 'origin', queue, 'created_at', at.iso, 'enqueued_at', at.iso,
    'queued_at', ARGV[1], unpack(fields))
end

-- What was sent before: by a client under its key or id, or by our own connection, which repeats a call whose answer was
-- lost. A random id without fingerprint can only be the latter.
local function known(id, record, fingerprint, at)
  local seen = record ~= '' and call('GET', IDEMPOTENCY .. record) or id
  if (fingerprint ~= '' or at.repeated) and call('HEXISTS', JOB .. seen, 'status') == 1 then
    return {(call('HGET', JOB .. seen, 'fingerprint') or '') == fingerprint and 'repeat' or 'conflict', seen}
  end
end

-- The job's own part of the reply. It gets into its queue later, with the others.
local function admit(at, fields, id, queue, expires_at, cache_key, record, keep, fingerprint)
  local seen = known(id, record, fingerprint, at)
  if seen then return seen end
  local text = cache_key ~= '' and call('GET', CACHE .. cache_key)
  if not text and at.depth >= at.bound then return refuse(at.depth, at.bound, at.now) end
  local joins = not text and cache_key ~= '' and join(cache_key, id)
  add(fields, 'cache', text and 'hit' or joins and 'join')
  add(fields, 'expires_at', not text and expires_at)
  add(fields, 'cache_key', not text and cache_key)
  add(fields, 'fingerprint', fingerprint)
  write(id, queue, joins and 'deferred' or 'queued', fields, at)
  if record ~= '' then call('SET', IDEMPOTENCY .. record, id, 'EX', keep) end
  if text then
    call('HINCRBY', TOTALS, 'hits', 1)
    settle({id = id, queue = queue, result_ttl = keep}, 'succeeded', at, {return_value = text})
    return {'hit', text}
  end
  at.depth = at.depth + 1
  if expires_at ~= '' then call('ZADD', EXPIRY, expires_at, id) end
  if joins then call('ZADD', DEFERRED .. queue, ARGV[1], id) return {'join'} end
  note(fed, queue, id)
  queued[id] = {'new', 0}
  return queued[id]
end
