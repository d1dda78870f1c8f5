-- Put before submit.lua: one job's way in. `at` has besides: bound on waiting jobs, their depth, repeated (see
-- `known`), by cache key the cached texts and the leaders of groups (see keys.py), and those led anew.
local fed, queued, admitted = {}, {}, 0

-- `first` and `last`: where in ARGV the job's own fields are; `more`: those that the script adds.
local function write(at, id, queue, status, first, last, more)
  -- The first write must be one that a full server refuses.
  if admitted == 0 or not fed[queue] then call('SADD', QUEUE_NAMES, QUEUE .. queue) end
  -- Those who were refused did not come back: their turns are void.
  if admitted == 0 and at.depth * 2 < at.bound then call('DEL', TURN) end
  admitted = admitted + 1
  local key, values = JOB .. id, #more
  for i = first, values > 0 and last or 0 do more[values + 1 + i - first] = ARGV[i] end
  if values > 0 then first, last = 1, #more end
  call('HSET', key, 'status', status, 'origin', queue, 'created_at', at.iso, 'enqueued_at', at.iso, 'queued_at', ARGV[1],
    unpack(values > 0 and more or ARGV, first, last))
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
  at.leaders[cache_key] = first and '' or id
  if first ~= '' then at.led[cache_key] = at.leaders[cache_key] end
  if not first then return false end
  if first ~= '' then call('RPUSH', key, first) end
  if call('RPUSH', key, id) == 1 then return false end
  call('RPOP', key)
  local leads = leader(cache_key)
  call('RPUSH', key, id)
  return leads
end

-- The job whose values begin at ARGV[i], and its own part of the reply. It gets into its queue later, with the others.
local function admit(at, i)
  local id, queue, expires_at, cache_key, record, keep, fingerprint, values = unpack(ARGV, i, i + 7)
  local seen = known(id, record, fingerprint, at)
  if seen then return seen end
  local text = cache_key ~= '' and at.texts[cache_key]
  if not text and at.depth >= at.bound then return refuse(at.depth, at.bound, at.now) end
  local joins = not text and cache_key ~= '' and join(at, cache_key, id)
  local more = {}
  add(more, 'cache', text and 'hit' or joins and 'join')
  add(more, 'expires_at', not text and expires_at)
  add(more, 'cache_key', not text and cache_key)
  add(more, 'fingerprint', fingerprint)
  write(at, id, queue, joins and 'deferred' or 'queued', i + 8, i + 7 + values, more)
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
