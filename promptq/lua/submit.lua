-- Admit a job: recognise a repeat, answer from the cache, join a live twin, or queue it.
-- KEYS: job hash, queue list, cached text, join list, idempotency record.
-- ARGV: id, queue, now, iso, bound on waiting jobs, result_ttl, expires_at|'', cache key|'', idempotency ttl|'',
--       fingerprint, then the job's other fields as name, value, ...
-- Reply: {'new', jobs ahead} | {'join'} | {'hit', return_value} | {'full', depth, seconds to its turn|''} | {'conflict', id} | {'repeat', id}
local id, queue, now, iso, bound, result_ttl, expires_at, cache_key, keep, fingerprint = unpack(ARGV, 1, 10)

local seen = keep ~= '' and call('GET', KEYS[5]) or id
local known = call('HMGET', JOB .. seen, 'status', 'fingerprint')
if known[1] then return {known[2] == fingerprint and 'repeat' or 'conflict', seen} end

local text = cache_key ~= '' and call('GET', KEYS[3])
local depth = waiting()
if not text and depth >= tonumber(bound) then return refuse(depth, tonumber(bound), tonumber(now)) end

local outcome = text and 'hit' or cache_key ~= '' and leader(cache_key) and 'join' or 'new'
local cache = ({hit = 'hit', join = 'join', new = cache_key ~= '' and 'miss' or 'bypass'})[outcome]
-- The first write must be one that a full server refuses.
call('SADD', QUEUE_NAMES, QUEUE .. queue)
-- Those who were refused did not come back: their turns are void.
if depth * 2 < tonumber(bound) then call('DEL', TURN) end
call('HSET', KEYS[1], 'origin', queue, 'created_at', iso, 'enqueued_at', iso, 'queued_at', now, 'cache', cache,
  'fingerprint', fingerprint, 'status', outcome == 'join' and 'deferred' or 'queued', unpack(ARGV, 11))
call('HINCRBY', TOTALS, 'submitted', 1)
if keep ~= '' then call('SET', KEYS[5], id, 'EX', keep) end
if outcome == 'hit' then
  settle(id, queue, 'succeeded', {now = tonumber(now), iso = iso, result_ttl = result_ttl}, {return_value = text})
  return {'hit', text}
end
if cache_key ~= '' then
  call('HSET', KEYS[1], 'cache_key', cache_key)
  call('RPUSH', KEYS[4], id)
end
if expires_at ~= '' then
  call('HSET', KEYS[1], 'expires_at', expires_at)
  call('ZADD', EXPIRY, expires_at, id)
end
if outcome == 'join' then
  call('ZADD', DEFERRED .. queue, now, id)
else
  local length = call('RPUSH', KEYS[2], id)
  call('PUBLISH', WAKE, queue)
  return {outcome, length - 1}
end
return {outcome}
