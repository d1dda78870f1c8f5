-- Put before claim.lua: a job at the head of a queue, whoever put it there.
local FOREIGN = {'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks',
  'rate_limit_key', 'repeats_left'}

-- Names of RQ's features on a job that we do not run. RQ always writes group_id, and we never do.
local function refused(job)
  local names = {}
  for _, name in ipairs(job.group_id and FOREIGN or {}) do
    if job[name] and job[name] ~= '' and job[name] ~= '0' then names[#names + 1] = name end
  end
  return table.concat(names, ', ')
end

-- The job with all its fields. Plain RQ writes no queued_at; a failed job that is queued again (`rq requeue`) begins
-- anew; `attempts` counts the one to come.
local function candidate(id, queue, now)
  local job, fields = {}, redis.pcall('HGETALL', JOB .. id)
  for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end
  if job.status and not job.queued_at then call('HSET', JOB .. id, 'queued_at', now) end
  job.id, job.queue, job.queued_at, job.refused = id, queue, job.queued_at or now, refused(job)
  job.attempts = (job.error_type and 0 or tonumber(job.attempts or '') or 0) + 1
  job.deadline = not job.error_type and tonumber(job.expires_at or '') or math.huge
  return job
end

-- Forget what an earlier life of the job, a cancel that came too late, or RQ left on it.
local function renewed(job)
  if job.group_id then call('PERSIST', JOB .. job.id) end
  if job.cancel_requested then call('HDEL', JOB .. job.id, 'cancel_requested') end
  if job.error_type then call('HDEL', JOB .. job.id, 'error_type', 'error_message', 'expires_at') end
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
end
