-- End running jobs. Only the worker that still holds the claim may: the execution in rq:wip is the fence.
-- A success fills the cache and gives its text to every job that joined it; any other end lets the next one lead.
-- ARGV: now, iso, result_ttl, failure_ttl, cache_ttl, worker key, worker name,
--       then per job: queue, id, execution, state, return_value|'' and, if the state is failed, error_type,
--       error_message, exc_string
-- Reply: per job 1 if this call ended it, else 0.
insist()
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], result_ttl = ARGV[3], failure_ttl = ARGV[4]}
local reply, counts, shared, members, held = {}, {}, {}, {}, {}
local jobs, cache_keys, leaders, gone, next_one = {}, {}, {}, {}, 8

-- What finish needs of a running job: one that runs has no place in promptq:expiry any more.
local function running(id, queue)
  local values = redis.pcall('HMGET', JOB .. id, 'status', 'cache_key', 'result_ttl', 'failure_ttl')
  return {id = id, queue = queue, status = values[1], cache_key = values[2], result_ttl = values[3],
    failure_ttl = values[4]}
end

local function share(job, text)
  if tonumber(ARGV[5]) > 0 then call('SET', CACHE .. job.cache_key, text, 'EX', ARGV[5]) end
  if leaders[job.cache_key] == job.id then gone[#gone + 1] = job.cache_key return end
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
  if leaders[job.cache_key] == '' then gone[#gone + 1] = job.cache_key end
end

while next_one <= #ARGV do
  local queue, id, execution, state = unpack(ARGV, next_one, next_one + 3)
  local member = id .. ':' .. execution
  jobs[#jobs + 1] = {at = next_one, id = id, queue = queue, state = state, member = member}
  note(members, WIP .. queue, member)
  next_one = next_one + (state == 'failed' and 8 or 5)
end
for wip, some in pairs(members) do
  for i, score in ipairs(call('ZMSCORE', wip, unpack(some))) do held[some[i]] = score end
  call('ZREM', wip, unpack(some))
end
for _, one in ipairs(jobs) do
  one.job = held[one.member] and running(one.id, one.queue) or {}
  held[one.member] = nil
  if one.job.cache_key then cache_keys[#cache_keys + 1] = one.job.cache_key end
end
if #cache_keys > 0 then
  for n, id in ipairs(call('HMGET', LEADERS, unpack(cache_keys))) do leaders[cache_keys[n]] = id end
end
for n, one in ipairs(jobs) do
  local job, state = one.job, one.state
  local ends = job.status == 'started'
  if ends then
    local how = {worker = ARGV[7], return_value = ARGV[one.at + 4]}
    if state == 'failed' then how.error_type, how.error_message, how.exc_string = unpack(ARGV, one.at + 5, one.at + 7) end
    settle(job, state, at, how)
    local count = state == 'failed' and 'failed_job_count' or 'successful_job_count'
    counts[count] = (counts[count] or 0) + 1
  end
  if job.cache_key and ends and state == 'succeeded' then share(job, ARGV[one.at + 4]) else leave(job) end
  reply[n] = ends and 1 or 0
end
if #shared > 0 then call('DEL', unpack(shared)) end
if #gone > 0 then call('HDEL', LEADERS, unpack(gone)) end
conclude(at)
if next(counts) and call('EXISTS', ARGV[6]) == 1 then
  for field, count in pairs(counts) do call('HINCRBY', ARGV[6], field, count) end
end
return reply
