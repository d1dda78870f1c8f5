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

-- The job with what a claim needs. Plain RQ writes no queued_at; a failed job that is queued again (`rq requeue`) begins
-- anew; `attempts` counts the one to come.
local function candidate(id, queue, now)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'data', 'queued_at', 'attempts', 'request_id', 'expires_at',
    'error_type', 'timeout_seconds', 'traceparent', 'cancel_requested', 'group_id')
  local job = {id = id, queue = queue, status = v[1], data = v[2], queued_at = v[3] or now, request_id = v[5] or '',
    attempts = (not v[7] and tonumber(v[4] or '') or 0) + 1, expires_at = v[6], error_type = v[7], timeout = v[8],
    traceparent = v[9] or '', cancel_requested = v[10], group_id = v[11], refused = '',
    deadline = v[6] and not v[7] and tonumber(v[6]) or math.huge}
  if job.status and not v[3] then call('HSET', JOB .. id, 'queued_at', now) end
  if job.group_id then foreign(job) end
  return job
end

-- Forget what an earlier life of the job, a cancel that came too late, or RQ left on it.
local function renewed(job)
  if job.group_id then call('PERSIST', JOB .. job.id) end
  if job.cancel_requested then call('HDEL', JOB .. job.id, 'cancel_requested') end
  if job.error_type then call('HDEL', JOB .. job.id, 'error_type', 'error_message', 'expires_at') end
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
end
