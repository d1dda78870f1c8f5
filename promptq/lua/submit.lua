-- Admit jobs in turn: recognise a repeat, answer from the cache, join a live twin, or queue it.
-- ARGV: now, iso, bound on waiting jobs, result_ttl, then per job: id, queue, expires_at|'', cache key|'', idempotency
--       record|'' and its ttl, fingerprint|'', how many values follow, the job's other fields as name, value, ...
-- Reply: per job {'new', jobs ahead} | {'join'} | {'hit', return_value} | {'full', depth, seconds to its turn|''}
--        | {'conflict', id} | {'repeat', id}
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], bound = tonumber(ARGV[3]), result_ttl = ARGV[4], depth = waiting()}
local jobs, names, texts, cache_keys, led, reply, i = {}, {}, {}, {}, {}, {}, 5
at.texts, at.leaders, at.led = {}, {}, {}
while i <= #ARGV do
  jobs[#jobs + 1], names[#names + 1] = i, JOB .. ARGV[i]
  if ARGV[i + 3] ~= '' then cache_keys[#cache_keys + 1], texts[#texts + 1] = ARGV[i + 3], CACHE .. ARGV[i + 3] end
  i = i + 8 + ARGV[i + 7]
end
at.repeated = call('EXISTS', unpack(names)) > 0
if #texts > 0 then
  for n, text in ipairs(call('MGET', unpack(texts))) do at.texts[cache_keys[n]] = text end
  for n, id in ipairs(call('HMGET', LEADERS, unpack(cache_keys))) do at.leaders[cache_keys[n]] = id end
end
for n, i in ipairs(jobs) do reply[n] = admit(at, i) end
for cache_key, first in pairs(at.led) do led[#led + 1], led[#led + 2] = cache_key, first end
bulk('HSET', LEADERS, led)
for queue, ids in pairs(fed) do
  local ahead = bulk('RPUSH', QUEUE .. queue, ids) - #ids
  for n, id in ipairs(ids) do queued[id][2] = ahead + n - 1 end
  call('PUBLISH', WAKE, queue)
end
if admitted > 0 then call('HINCRBY', TOTALS, 'submitted', admitted) end
conclude(at)
return reply
