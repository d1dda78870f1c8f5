-- End running jobs. Only the worker that still holds a claim may: its member id:execution of rq:wip is the fence.
-- A success gives its text to those that joined it and to the cache; after any other end the next of its group leads.
-- ARGV: time|'', result_ttl, failure_ttl, cache_ttl, worker key, worker name, then per job: queue, id, execution,
--       state, return_value|'', error_type|'', error_message|'', exc_string|'', tokens of the prompt, of these cached,
--       and of the completion, with spaces between|''
-- Reply: per job 1 if this claim ended it, now or in an earlier call whose answer was lost, else 0.
local given_time, result_ttl, failure_ttl, cache_ttl, worker_key, worker = unpack(ARGV, 1, 6)
local FIRST_JOB, VALUES = 7, 9
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl, failure_ttl)
local reply, to_cache, ended = {}, {}, {}
cache_ttl = tonumber(cache_ttl)

-- Give a leader's text to its group.
local function share(job, text)
  if not job.cache_key then return end
  if cache_ttl > 0 and type(job.entry) == 'string' then to_cache[#to_cache + 1] = job end
  local group = read_group(job.cache_key)
  if leader_of(group) ~= job.id then return end
  for id in string.gmatch(group, '%S+') do
    local joined = read_job(id)
    if joined.status == 'deferred' then
      call('ZREM', DEFERRED .. joined.queue, joined.id)
      end_job(joined, 'succeeded', transition, {worker = worker, return_value = text, answered_by = 'joins'})
    end
  end
  write_group(job.cache_key, '')
end

-- End one job. `outcome` as end_job takes it; its `by` is the execution. Tells whether this claim ended it.
local function finish(queue, id, state, outcome)
  local holds = call('ZREM', WIP .. queue, id .. ':' .. outcome.by) == 1
  local job = read_job(id, queue)
  if not holds then return job.ended_by == outcome.by end
  if job.status ~= 'started' then
    leave_group(job)
    return false
  end
  end_job(job, state, transition, outcome)
  if state == 'succeeded' then share(job, outcome.return_value) else leave_group(job) end
  ended[state] = (ended[state] or 0) + 1
  return true
end

local function count_for_worker()
  if not next(ended) or call('EXISTS', worker_key) == 0 then return end
  call('HINCRBY', worker_key, 'successful_job_count', ended.succeeded or 0)
  if ended.failed then call('HINCRBY', worker_key, 'failed_job_count', ended.failed) end
end

for i = FIRST_JOB, #ARGV, VALUES do
  local queue, id, execution, state, text, error_type, error_message, trace, tokens = unpack(ARGV, i, i + VALUES - 1)
  local outcome = {by = execution, worker = worker, return_value = text, error_type = error_type,
    error_message = error_message, exc_string = trace, tokens = tokens}
  reply[#reply + 1] = finish(queue, id, state, outcome) and 1 or 0
end
conclude(transition)
count_for_worker()
if #to_cache > 0 then remember(to_cache, call('HGET', worker_key, 'identity'), cache_ttl, transition) end
return reply
