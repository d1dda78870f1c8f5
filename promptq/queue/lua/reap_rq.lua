-- Look after what plain RQ has put aside: jobs for later (enqueue_in) are queued when they are due, and jobs that wait
-- for another one (depends_on) are refused, for that is RQ's worker's to do. Other programs' jobs are left alone.
-- ARGV: time|'', failure_ttl, the most jobs of a kind, error_type, error_message, exc_string of a refusal, queue names.
-- Reply: {queued, refused, {the id of a job of which nobody has read what it calls, its data, ...}}
local given_time, failure_ttl, most, error_type, error_message, trace = unpack(ARGV, 1, 6)
local FIRST_QUEUE = 7
write_on_a_full_server()
local transition = new_transition(given_time, nil, failure_ttl)
local queued, refused, unknown = 0, 0, {}

-- Whether it is for us; if that is unknown, it is noted.
local function is_ours(job)
  if not is_unknown(job) then return not is_foreign(job) end
  unknown[#unknown + 1] = job.id
  unknown[#unknown + 1] = call('HGET', JOB .. job.id, 'data') or ''
  return false
end

local function queue_when_due(queue)
  for _, id in ipairs(call('ZRANGEBYSCORE', SCHEDULED .. queue, '-inf', stamp(transition.now), 'LIMIT', 0, most)) do
    local job = read_job(id, queue)
    if job.status ~= 'scheduled' then
      call('ZREM', SCHEDULED .. queue, id)
    elseif is_ours(job) then
      call('ZREM', SCHEDULED .. queue, id)
      call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', transition.iso, 'queued_at', stamp(transition.now))
      call('RPUSH', QUEUE .. queue, id)
      announce(WAKE, queue)
      queued = queued + 1
    end
  end
end

-- RQ keeps both directions of a dependency, in sets without a lifetime.
local function forget_dependencies(id)
  for _, other in ipairs(call('SMEMBERS', JOB .. ':' .. id .. ':dependencies')) do
    call('SREM', JOB .. other .. ':dependents', id)
  end
  call('DEL', JOB .. ':' .. id .. ':dependencies')
end

local function refuse_dependent(queue)
  for _, id in ipairs(call('ZRANDMEMBER', DEFERRED .. queue, most) or {}) do
    local job = read_job(id, queue)
    if job.status == 'deferred' and not job.cache_key and is_ours(job) then
      withdraw(job)
      forget_dependencies(id)
      end_job(job, 'failed', transition, {error_type = error_type, error_message = error_message, exc_string = trace})
      refused = refused + 1
    end
  end
end

for i = FIRST_QUEUE, #ARGV do
  queue_when_due(ARGV[i])
  refuse_dependent(ARGV[i])
end
conclude(transition)
return {queued, refused, unknown}
