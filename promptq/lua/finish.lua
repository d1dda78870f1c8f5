-- End running jobs. Only the worker that still holds the claim may: the execution in rq:wip is the fence.
-- A success fills the cache and gives its text to every job that joined it; any other end lets the next one lead.
-- ARGV: now, iso, result_ttl, failure_ttl, cache_ttl, worker key, worker name,
--       then per job: queue, id, execution, state, return_value|'', error_type|'', error_message|'', exc_string|''
-- Reply: per job 1 if this call ended it, else 0.
insist()
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], result_ttl = ARGV[3], failure_ttl = ARGV[4]}
local reply, counts, shared, members, held = {}, {}, {}, {}, {}
local RUNNING = {'status', 'cache_key', 'result_ttl', 'failure_ttl'}

local function share(job, text)
  if tonumber(ARGV[5]) > 0 then call('SET', CACHE .. job.cache_key, text, 'EX', ARGV[5]) end
  local group = redis.pcall('LRANGE', JOIN .. job.cache_key, 0, -1)
  if group[1] ~= job.id then return end
  for i = 2, #group do
    local joined = read(group[i])
    if joined.status == 'deferred' then
      call('ZREM', DEFERRED .. joined.queue, joined.id)
      settle(joined, 'succeeded', at, {worker = ARGV[7], return_value = text})
    end
  end
  shared[#shared + 1] = JOIN .. job.cache_key
end

for i = 8, #ARGV, 8 do note(members, WIP .. ARGV[i], ARGV[i + 1] .. ':' .. ARGV[i + 2]) end
for wip, some in pairs(members) do
  for i, score in ipairs(call('ZMSCORE', wip, unpack(some))) do held[some[i]] = score end
  call('ZREM', wip, unpack(some))
end
for i = 8, #ARGV, 8 do
  local queue, id, execution, state, text, error_type, error_message, exc_string = unpack(ARGV, i, i + 7)
  local member = id .. ':' .. execution
  local job = held[member] and read(id, queue, RUNNING) or {}
  held[member] = nil
  local ends = job.status == 'started'
  if ends then
    settle(job, state, at, {worker = ARGV[7], return_value = text, error_type = error_type,
      error_message = error_message, exc_string = exc_string})
    local count = state == 'failed' and 'failed_job_count' or 'successful_job_count'
    counts[count] = (counts[count] or 0) + 1
  end
  if job.cache_key and ends and state == 'succeeded' then share(job, text) else leave(job) end
  reply[#reply + 1] = ends and 1 or 0
end
if #shared > 0 then call('DEL', unpack(shared)) end
conclude(at)
if next(counts) and call('EXISTS', ARGV[6]) == 1 then
  for field, count in pairs(counts) do call('HINCRBY', ARGV[6], field, count) end
end
return reply
