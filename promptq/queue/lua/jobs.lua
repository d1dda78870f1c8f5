-- Put before the scripts that change jobs.

-- What of a job the transitions need. A key that is no hash is no job, and has no status; it must not keep others from
-- being read, hence pcall.
local function read_job(id, queue)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'origin', 'attempts', 'cache_key', 'expires_at',
    'cancel_requested', 'error_type', 'result_ttl', 'failure_ttl', 'ended_by', 'calls', 'queued_at', 'progress_of',
    'owner', 'webhook')
  return {id = id, queue = queue or v[2], status = v[1], attempts = tonumber(v[3] or 0) or 0, cache_key = v[4],
    expires_at = v[5], cancel_requested = v[6], error_type = v[7], result_ttl = v[8], failure_ttl = v[9],
    ended_by = v[10], calls = v[11], queued_at = v[12], has_progress = v[13], owner = v[14], webhook = v[15]}
end

-- The id in a member of rq:wip.
local function id_of(member) return string.match(member, '^(.*):') or member end

-- Whether plain RQ made the job, and nobody has read yet what it calls: that is in its `data`, which may be compressed.
local function is_unknown(job) return job.status and not job.calls and not job.queued_at end

-- Whether it is another program's job, in a queue of the same name.
local function is_foreign(job) return job.calls and job.calls ~= FUNCTION end

-- Whether a job waits: in its queue, for the text of another one, or for its time.
local function is_waiting(job)
  return job.status == 'queued' or job.status == 'deferred' or job.status == 'scheduled'
end

-- Take a waiting job out of where it waits.
local function withdraw(job)
  call('LREM', QUEUE .. job.queue, 1, job.id)
  if job.owner then call('ZREM', START_TAGS .. job.queue, job.id) end
  call('ZREM', DEFERRED .. job.queue, job.id)
  call('ZREM', SCHEDULED .. job.queue, job.id)
end

-- Of a job that ran, only the time at which it was claimed is kept, under no id: it goes before all that have a tag.
local function drop_start_tag(job)
  local tag = job.owner and redis.pcall('ZSCORE', START_TAGS .. job.queue, job.id)
  if type(tag) ~= 'string' then return end
  call('ZREM', START_TAGS .. job.queue, job.id)
  call('ZADD', START_TAGS .. job.queue, 'GT', tag, '')
end

-- How long a job may wait is for its first start: once it has begun, or has ended, that counts no more.
local function forget_expiry(job)
  if not job.expires_at then return end
  call('HDEL', JOB .. job.id, 'expires_at')
  call('ZREM', EXPIRY, job.id)
end

-- Put a job that ran, or waited on another, at the front of its queue.
local function to_front(job)
  drop_start_tag(job)
  call('HSET', JOB .. job.id, 'status', 'queued', 'started_at', '', 'worker_name', '')
  call('LPUSH', QUEUE .. job.queue, job.id)
  announce(WAKE, job.queue)
end
