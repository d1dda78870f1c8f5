-- End running jobs. Only the worker that still holds the claim may: the execution in rq:wip is the fence.
-- A success answers like prompts from now on, and gives its text to every job that joined it; any other end lets the
-- next one lead.
-- ARGV: now, iso, result_ttl, failure_ttl, cache_ttl, worker key, worker name,
--       then per job: queue, id, execution, state, return_value|'' and, if the state is failed, error_type,
--       error_message, exc_string
-- Reply: per job 1 if this call ended it, else 0.
insist()
local at = moment(unpack(ARGV, 1, 4))
local reply, counts, shared, members, held, how = {}, {}, {}, {}, {}, {worker = ARGV[7]}
local jobs, cached, cache_keys, gone, answers, cache_ttl, next_one = {}, {}, {}, {}, {}, tonumber(ARGV[5]), 8

local function share(job, text)
  if cache_ttl > 0 and type(job.entry) == 'string' then answers[#answers + 1] = job end
  if job.leader == job.id then gone[#gone + 1] = job.cache_key return end
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
  if job.leader == '' then gone[#gone + 1] = job.cache_key end
end

while next_one <= #ARGV do
  local queue, id, execution, state = unpack(ARGV, next_one, next_one + 3)
  local member = id .. ':' .. execution
  -- Not expires_at: one that runs has no place in promptq:expiry any more.
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'cache_key', 'result_ttl', 'failure_ttl')
  jobs[#jobs + 1] = {at = next_one, id = id, queue = queue, state = state, member = member, status = v[1],
    cache_key = v[2], result_ttl = v[3], failure_ttl = v[4]}
  note(members, WIP .. queue, member)
  if v[2] then cached[#cached + 1], cache_keys[#cache_keys + 1] = jobs[#jobs], v[2] end
  next_one = next_one + (state == 'failed' and 8 or 5)
end
for wip, some in pairs(members) do
  for i, score in ipairs(call('ZMSCORE', wip, unpack(some))) do held[some[i]] = score end
  call('ZREM', wip, unpack(some))
end
if #cache_keys > 0 then
  for n, id in ipairs(call('HMGET', LEADERS, unpack(cache_keys))) do cached[n].leader = id end
end
for n, job in ipairs(jobs) do
  local state, text = job.state, ARGV[job.at + 4]
  local ends = held[job.member] and job.status == 'started'
  if ends then
    how.return_value, how.error_type, how.error_message, how.exc_string = text, nil, nil, nil
    if state == 'failed' then how.error_type, how.error_message, how.exc_string = unpack(ARGV, job.at + 5, job.at + 7) end
    settle(job, state, at, how)
    local count = state == 'failed' and 'failed_job_count' or 'successful_job_count'
    counts[count] = (counts[count] or 0) + 1
  end
  if job.cache_key and ends and state == 'succeeded' then share(job, text)
  elseif held[job.member] then leave(job) end
  held[job.member] = nil
  reply[n] = ends and 1 or 0
end
if #shared > 0 then call('DEL', unpack(shared)) end
if #gone > 0 then call('HDEL', LEADERS, unpack(gone)) end
conclude(at)
if next(counts) and call('EXISTS', ARGV[6]) == 1 then
  for field, count in pairs(counts) do call('HINCRBY', ARGV[6], field, count) end
end
if #answers > 0 then remember(answers, at, cache_ttl) end
return reply
