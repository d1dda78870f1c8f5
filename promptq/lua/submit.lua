-- Admit jobs in turn: recognise a repeat, answer from the cache, join a live twin, or queue it.
-- ARGV: now, iso, bound on waiting jobs, result_ttl, then per job: id, queue, expires_at|'', cache key|'', idempotency
--       record|'' and its ttl, fingerprint|'', how many values follow, the job's other fields as name, value, ...
-- Reply: per job {'new', jobs ahead} | {'join'} | {'hit', return_value} | {'full', depth, seconds to its turn|''}
--        | {'conflict', id} | {'repeat', id}
local now, iso, bound, result_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local at = {now = tonumber(now), iso = iso, result_ttl = result_ttl}
local depth, admitted, fed, queued, reply = waiting(), 0, {}, {}, {}

local function write(id, queue, status, fields)
  -- The first write must be one that a full server refuses.
  if admitted == 0 or not fed[queue] then call('SADD', QUEUE_NAMES, QUEUE .. queue) end
  -- Those who were refused did not come back: their turns are void.
  if admitted == 0 and depth * 2 < bound then call('DEL', TURN) end
  admitted = admitted + 1
  call('HSET', JOB .. id, 'status', status, 'origin', queue, 'created_at', iso, 'enqueued_at', iso, 'queued_at', now,
    unpack(fields))
end

local function admit(id, queue, expires_at, cache_key, record, keep, fingerprint, fields)
  local seen = record ~= '' and call('GET', IDEMPOTENCY .. record) or id
  if call('HEXISTS', JOB .. seen, 'status') == 1 then
    return {(call('HGET', JOB .. seen, 'fingerprint') or '') == fingerprint and 'repeat' or 'conflict', seen}
  end
  local text = cache_key ~= '' and call('GET', CACHE .. cache_key)
  if not text and depth >= bound then return refuse(depth, bound, at.now) end
  local joins = not text and cache_key ~= '' and join(cache_key, id)
  add(fields, 'cache', text and 'hit' or joins and 'join')
  add(fields, 'expires_at', not text and expires_at)
  add(fields, 'cache_key', not text and cache_key)
  add(fields, 'fingerprint', fingerprint)
  write(id, queue, joins and 'deferred' or 'queued', fields)
  if record ~= '' then call('SET', IDEMPOTENCY .. record, id, 'EX', keep) end
  if text then
    call('HINCRBY', TOTALS, 'hits', 1)
    settle({id = id, queue = queue, result_ttl = keep}, 'succeeded', at, {return_value = text})
    return {'hit', text}
  end
  depth = depth + 1
  if expires_at ~= '' then call('ZADD', EXPIRY, expires_at, id) end
  if joins then call('ZADD', DEFERRED .. queue, now, id) return {'join'} end
  note(fed, queue, id)
  queued[id] = {'new', 0}
  return queued[id]
end

local i = 5
while i <= #ARGV do
  local id, queue, expires_at, cache_key, record, keep, fingerprint, more = unpack(ARGV, i, i + 7)
  local fields = {unpack(ARGV, i + 8, i + 7 + more)}
  reply[#reply + 1] = admit(id, queue, expires_at, cache_key, record, keep, fingerprint, fields)
  i = i + 8 + more
end
for queue, ids in pairs(fed) do
  local ahead = bulk('RPUSH', QUEUE .. queue, ids) - #ids
  for n, id in ipairs(ids) do queued[id][2] = ahead + n - 1 end
  call('PUBLISH', WAKE, queue)
end
if admitted > 0 then call('HINCRBY', TOTALS, 'submitted', admitted) end
conclude(at)
return reply
