-- Admit jobs in turn: recognise a repeat, answer from the cache, join a live twin, or queue it.
-- ARGV: now, iso, bound on waiting jobs, result_ttl, cache_ttl, then per job: id, queue, expires_at|'', cache key|'',
--       idempotency record|'' and its ttl, fingerprint|'', data, how many values follow, the job's other fields as
--       name, value, ...
-- Reply: per job the number of jobs ahead, if it is new | {'join'} | {'hit', return_value}
--        | {'full', depth, seconds to its turn|''} | {'conflict', id} | {'repeat', id}
local at = moment(ARGV[1], ARGV[2], ARGV[4])
local jobs, names, cache_keys, reply, i = {}, {}, {}, {}, 6
at.bound, at.depth, at.cache_ttl = tonumber(ARGV[3]), waiting(), 1000 * ARGV[5]
at.answers, at.leaders, at.led = {}, {}, {}
while i <= #ARGV do
  jobs[#jobs + 1], names[#names + 1] = i, JOB .. ARGV[i]
  if ARGV[i + 3] ~= '' then cache_keys[#cache_keys + 1] = ARGV[i + 3] end
  i = i + 9 + ARGV[i + 8]
end
at.repeated = call('EXISTS', unpack(names)) > 0
if #cache_keys > 0 then
  at.answers = remembered(cache_keys)
  for n, id in ipairs(call('HMGET', LEADERS, unpack(cache_keys))) do if id then at.leaders[cache_keys[n]] = id end end
end
for n, i in ipairs(jobs) do reply[n] = admit(at, i, n) end
bulk('HSET', LEADERS, at.led)
for queue, ids in pairs(fed) do
  local ahead = bulk('RPUSH', QUEUE .. queue, ids) - #ids
  for n, id in ipairs(ids) do reply[places[id]] = ahead + n - 1 end
  call('PUBLISH', WAKE, queue)
end
if admitted > 0 then call('HINCRBY', TOTALS, 'submitted', admitted) end
conclude(at)
return reply
