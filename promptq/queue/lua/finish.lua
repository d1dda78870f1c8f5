-- End running jobs. Only the worker that still holds a claim may: its member id:execution of rq:wip is the fence.
-- A success gives its text to the jobs that joined it, and to the result cache; after any other end the next of its
-- group leads.
-- ARGV: time|'', result_ttl, failure_ttl, cache_ttl, worker key, worker name, then per job: queue, id, execution,
--       state, return_value|'', error_type|'', error_message|'', exc_string|''
-- Reply: per job 1 if this call ended it, else 0.
local given_time, result_ttl, failure_ttl, cache_ttl, worker_key, worker = unpack(ARGV, 1, 6)
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl, failure_ttl)
local reply, to_cache, failures = {}, {}, 0
cache_ttl = tonumber(cache_ttl)

-- Give a leader's text to its group.
local function share(job, text)
  if not job.cache_key then return end
  if cache_ttl > 0 and type(job.entry) == 'string' then to_cache[#to_cache + 1] = job end
  local group = read_group(job.cache_key)
  if string.match(group, '^%S+') ~= job.id then return end
  for id in string.gmatch(group, '%S+') do
    local joined = read_job(id)
    if joined.status == 'deferred' then
      call('ZREM', DEFERRED .. joined.queue, joined.id)
      end_job(joined, 'succeeded', transition, {worker = worker, return_value = text})
    end
  end
  write_group(job.cache_key, '')
end

for i = 7, #ARGV, 8 do
  local queue, id, execution, state, text, error_type, error_message, trace = unpack(ARGV, i, i + 7)
  local holds = call('ZREM', WIP .. queue, id .. ':' .. execution) == 1
  local job = holds and read_job(id, queue)
  local ends = holds and job.status == 'started'
  if ends then
    job.expires_at = nil -- a claimed job is no longer in promptq:expiry
    end_job(job, state, transition, {worker = worker, return_value = text, error_type = error_type,
      error_message = error_message, exc_string = trace})
    failures = failures + (state == 'failed' and 1 or 0)
  end
  if ends and state == 'succeeded' then share(job, text) elseif holds then leave_group(job) end
  reply[#reply + 1] = ends and 1 or 0
end
conclude(transition)

local ended = 0
for _, ends in ipairs(reply) do ended = ended + ends end
if ended > 0 and call('EXISTS', worker_key) == 1 then
  call('HINCRBY', worker_key, 'successful_job_count', ended - failures)
  if failures > 0 then call('HINCRBY', worker_key, 'failed_job_count', failures) end
end
if #to_cache > 0 then remember(to_cache, call('HGET', worker_key, 'identity'), cache_ttl, transition) end
return reply
