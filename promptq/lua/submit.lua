-- Admit jobs in turn: recognise a repeat, answer from the cache, join a live twin, or queue it.
-- ARGV: now, iso, bound on waiting jobs, result_ttl, then per job: id, queue, expires_at|'', cache key|'', idempotency
--       record|'' and its ttl, fingerprint|'', how many values follow, the job's other fields as name, value, ...
-- Reply: per job {'new', jobs ahead} | {'join'} | {'hit', return_value} | {'full', depth, seconds to its turn|''}
--        | {'conflict', id} | {'repeat', id}
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], bound = tonumber(ARGV[3]), result_ttl = ARGV[4], depth = waiting()}
local jobs, names, asked, reply, i = {}, {}, {}, {}, 5
at.texts = {}
while i <= #ARGV do
  jobs[#jobs + 1], names[#names + 1] = i, JOB .. ARGV[i]
  if ARGV[i + 3] ~= '' then asked[#asked + 1] = CACHE .. ARGV[i + 3] end
  i = i + 8 + ARGV[i + 7]
end
at.repeated = call('EXISTS', unpack(names)) > 0
for n, text in ipairs(#asked > 0 and call('MGET', unpack(asked)) or {}) do at.texts[asked[n]] = text end
for n, i in ipairs(jobs) do reply[n] = admit(at, i) end
for queue, ids in pairs(fed) do
  local ahead = bulk('RPUSH', QUEUE .. queue, ids) - #ids
  for n, id in ipairs(ids) do queued[id][2] = ahead + n - 1 end
  call('PUBLISH', WAKE, queue)
end
if admitted > 0 then call('HINCRBY', TOTALS, 'submitted', admitted) end
conclude(at)
return reply
