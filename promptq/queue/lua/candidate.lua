-- Put before claim.lua: a job at the head of a queue, whoever put it there.
local FOREIGN = {'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks',
  'rate_limit_key', 'repeats_left'}

-- Names of RQ's features on a job that we do not run, and RQ's time limit. RQ always writes group_id, and we never do.
local function foreign(job)
  local names, values = {}, redis.pcall('HMGET', JOB .. job.id, 'timeout', unpack(FOREIGN))
  for i, name in ipairs(FOREIGN) do
    local value = values[i + 1]
    if value and value ~= '' and value ~= '0' then names[#names + 1] = name end
  end
  job.timeout, job.refused = job.timeout or values[1], table.concat(names, ', ')
end

-- Add what few jobs have. Plain RQ writes no queued_at; a failed job that is queued again (`rq requeue`) begins anew.
local function unusual(job, attempts, now)
  local v = redis.pcall('HMGET', JOB .. job.id, 'expires_at', 'error_type', 'timeout_seconds', 'traceparent',
    'cancel_requested')
  job.unusual, job.expires_at, job.error_type, job.timeout = true, v[1], v[2], v[3]
  job.traceparent, job.cancel_requested, job.refused = v[4] or '', v[5], ''
  job.deadline = v[1] and not v[2] and tonumber(v[1])
  job.attempts = (not v[2] and tonumber(attempts or '') or 0) + 1
  if job.status and not job.queued_at then call('HSET', JOB .. job.id, 'queued_at', now) end
  job.queued_at = job.queued_at or now
  if job.group_id then foreign(job) end
end

-- The job with what a claim needs; `attempts` counts the one to come. Asking for a field costs, and most jobs are plain:
-- those that we admitted without anything unusual, and that nobody has claimed, have no attempts yet.
local function candidate(id, queue, now)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'data', 'queued_at', 'request_id', 'attempts', 'group_id')
  local job = {id = id, queue = queue, status = v[1], data = v[2], queued_at = v[3], request_id = v[4] or '',
    attempts = 1, group_id = v[6]}
  if v[5] or v[6] or not v[3] then unusual(job, v[5], now) end
  return job
end

-- Forget what an earlier life of the job, a cancel that came too late, or RQ left on it.
local function renewed(job)
  if job.group_id then call('PERSIST', JOB .. job.id) end
  if job.cancel_requested then call('HDEL', JOB .. job.id, 'cancel_requested') end
  if job.error_type then call('HDEL', JOB .. job.id, 'error_type', 'error_message', 'expires_at') end
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
end
