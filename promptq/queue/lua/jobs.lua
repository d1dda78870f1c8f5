-- Put before the scripts that change jobs.

-- What of a job the transitions need. A key that is no hash is no job, and has no status; it must not keep others from
-- being read, hence pcall.
local function read_job(id, queue)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'origin', 'attempts', 'cache_key', 'expires_at',
    'cancel_requested', 'error_type', 'result_ttl', 'failure_ttl')
  return {id = id, queue = queue or v[2], status = v[1], attempts = tonumber(v[3] or 0) or 0, cache_key = v[4],
    expires_at = v[5], cancel_requested = v[6], error_type = v[7], result_ttl = v[8], failure_ttl = v[9]}
end

-- Whether a job waits, in its queue or for the text of another one.
local function is_waiting(job) return job.status == 'queued' or job.status == 'deferred' end

-- Take a waiting job out of where it waits.
local function withdraw(job)
  call('LREM', QUEUE .. job.queue, 1, job.id)
  call('ZREM', DEFERRED .. job.queue, job.id)
end

-- Put a job that ran, or waited on another, at the front of its queue.
local function to_front(job)
  call('HSET', JOB .. job.id, 'status', 'queued', 'started_at', '', 'worker_name', '')
  call('LPUSH', QUEUE .. job.queue, job.id)
  call('PUBLISH', WAKE, job.queue)
end
