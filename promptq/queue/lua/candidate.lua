-- Put before claim.lua: a job at the head of a queue, whoever put it there.
local UNSUPPORTED = {'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks',
  'rate_limit_key', 'repeats_left'}

-- Names of RQ's features on a job that we do not run, with commas between.
local function unsupported(id)
  local names, values = {}, redis.pcall('HMGET', JOB .. id, unpack(UNSUPPORTED))
  for i, name in ipairs(UNSUPPORTED) do
    local value = values[i]
    if value and value ~= '' and value ~= '0' then names[#names + 1] = name end
  end
  return table.concat(names, ', ')
end

-- The job with what a claim needs; `attempts` counts the one to come. RQ's enqueue writes group_id and no queued_at,
-- and ours the other way round. An error_type is of an earlier life: a failed job that was queued again (`rq requeue`)
-- begins anew.
local function read_candidate(id, queue, now)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'data', 'queued_at', 'attempts', 'expires_at', 'error_type',
    'cancel_requested', 'group_id', 'timeout')
  local job = {id = id, queue = queue, status = v[1], data = v[2], queued_at = tonumber(v[3] or ''), expires_at = v[5],
    failed_before = v[6], cancel_requested = v[7], from_rq = v[8], rq_timeout = v[9] or ''}
  if job.status and not job.queued_at then
    job.queued_at = now
    call('HSET', JOB .. id, 'queued_at', stamp(now))
  end
  job.attempts = 1 + (not job.failed_before and tonumber(v[4] or '') or 0)
  job.overdue = job.expires_at and not job.failed_before and tonumber(job.expires_at) <= now
  return job
end

-- Lease a job: forget what an earlier life, a cancel that came too late, or RQ left on it. Returns its row of the
-- reply.
local function lease(job, execution, worker, lease_end, transition)
  local key = JOB .. job.id
  if job.from_rq then call('PERSIST', key) end
  if job.cancel_requested then call('HDEL', key, 'cancel_requested') end
  if job.failed_before then call('HDEL', key, 'error_type', 'error_message', 'expires_at') end
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
  call('HSET', key, 'status', 'started', 'started_at', transition.iso, 'worker_name', worker, 'attempts', job.attempts)
  call('ZADD', WIP .. job.queue, stamp(lease_end), job.id .. ':' .. execution)
  return {job.id, job.queue, execution, job.data, job.attempts, stamp(transition.now - job.queued_at),
    job.from_rq and job.rq_timeout or '', job.from_rq and unsupported(job.id) or ''}
end
