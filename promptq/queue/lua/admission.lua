-- Put before submit.lua: one job's way in. `at` has besides: bound on waiting jobs, their depth, repeated (see
-- `known`), cache_ttl in ms, by cache key the places of texts that may answer and the leaders of groups (see keys.py),
-- and those led anew.
local fed, places, admitted = {}, {}, 0

-- `place`: where in ARGV the job's data is, and then its own fields; `cache`: how it has its text from another job, if so.
-- The data come first: behind smaller fields, the hash would be moved a dozen times as it grows.
local function write(at, id, queue, status, place, cache)
  -- The first write must be one that a full server refuses.
  if admitted == 0 or not fed[queue] then call('SADD', QUEUE_NAMES, QUEUE .. queue) end
  -- Those who were refused did not come back: their turns are void.
  if admitted == 0 and at.depth * 2 < at.bound then call('DEL', TURN) end
  admitted = admitted + 1
  call('HSET', JOB .. id, 'data', ARGV[place], 'status', status, 'origin', queue, 'created_at', at.iso,
    'enqueued_at', at.iso, 'queued_at', ARGV[1], unpack(ARGV, place + 2, place + 1 + ARGV[place + 1]))
  if cache then call('HSET', JOB .. id, 'cache', cache) end
end

-- What was sent before: by a client under its key or id, or by our own connection, which repeats a call whose answer was
-- lost. A random id without fingerprint can only be the latter.
local function known(id, record, fingerprint, at)
  local seen = record ~= '' and call('GET', IDEMPOTENCY .. record) or id
  if (fingerprint ~= '' or at.repeated) and call('HEXISTS', JOB .. seen, 'status') == 1 then
    return {(call('HGET', JOB .. seen, 'fingerprint') or '') == fingerprint and 'repeat' or 'conflict', seen}
  end
end

-- Put a new job into its join group. Tells whether a live job leads it; if not, the new one does. Most have no twin, and
-- these are written into one hash, all at once: only the second of a group makes it a list.
local function join(at, cache_key, id)
  local first, key = at.leaders[cache_key], JOIN .. cache_key
  if first ~= '' then
    local n = #at.led
    at.leaders[cache_key] = first and '' or id
    at.led[n + 1], at.led[n + 2] = cache_key, at.leaders[cache_key]
  end
  if not first then return false end
  if first ~= '' then call('RPUSH', key, first) end
  if call('RPUSH', key, id) == 1 then return false end
  call('RPOP', key)
  local leads = leader(cache_key)
  call('RPUSH', key, id)
  return leads
end

-- The job whose values begin at ARGV[i]. Returns its part of the reply, the n-th; a new job's is known when it gets into
-- its queue, later and with the others.
local function admit(at, i, n)
  local id, queue, expires_at, cache_key, record, keep, fingerprint = unpack(ARGV, i, i + 6)
  local seen = known(id, record, fingerprint, at)
  if seen then return seen end
  local text = at.answers[cache_key] and recent_text(at.answers[cache_key], at.cache_ttl)
  if not text and at.depth >= at.bound then return refuse(at.depth, at.bound, at.now) end
  local joins = not text and cache_key ~= '' and join(at, cache_key, id)
  local status, cache = joins and 'deferred' or 'queued', text and 'hit' or joins and 'join'
  write(at, id, queue, status, i + 7, cache)
  if record ~= '' then call('SET', IDEMPOTENCY .. record, id, 'EX', keep) end
  if text then
    at.totals.hits = (at.totals.hits or 0) + 1
    settle({id = id, queue = queue, result_ttl = keep}, 'succeeded', at, {return_value = text})
    return {'hit', text}
  end
  at.depth = at.depth + 1
  if expires_at ~= '' then call('ZADD', EXPIRY, expires_at, id) end
  if joins then call('ZADD', DEFERRED .. queue, ARGV[1], id) return {'join'} end
  note(fed, queue, id)
  places[id] = n
  return 0
end
