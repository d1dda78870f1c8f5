-- Put before claim.lua: a job at the head of a queue, whoever put it there.

-- The job with what a claim needs; `attempts` counts those before. An error_type is of an earlier life: a failed job
-- that was queued again (`rq requeue`) begins anew. RQ's enqueue leaves a group_id; and where it made the job, which we
-- know by `calls`, its limit counts. On a job that was ours it is RQ's default, which nobody asked for.
local function read_candidate(id, queue)
  local v = redis.pcall('HMGET', JOB .. id, 'status', 'data', 'queued_at', 'attempts', 'expires_at', 'error_type',
    'cancel_requested', 'group_id', 'timeout', 'calls', 'moves', 'progress_of',
    'watched', 'preemptions')
  local failed_before = v[6]
  return {id = id, queue = queue, status = v[1], data = v[2], queued_at = v[3], expires_at = v[5],
    attempts = not failed_before and tonumber(v[4] or '') or 0, failed_before = failed_before, cancel_requested = v[7],
    is_from_rq = v[8] or v[10], rq_timeout = v[10] and v[9] or '', calls = v[10],
    moves = v[11], progress_of = v[12], watched = v[13], preemptions = v[14]}
end

-- Whether it stays where it is: another program's, or perhaps.
local function must_stay(job) return is_foreign(job) or job.status == 'queued' and is_unknown(job) end

-- Since when it waits, for the order between queues; from now on, where nobody said.
local function note_wait(job, now)
  job.waits_since = tonumber(job.queued_at or '')
  if job.waits_since or not job.status or must_stay(job) then return end
  job.waits_since = now
  call('HSET', JOB .. job.id, 'queued_at', stamp(now))
end

local function is_overdue(job, now)
  return job.expires_at and not job.failed_before and tonumber(job.expires_at) <= now
end

-- Whether it lost its worker in every attempt but the last, and so may be what kills them.
local function is_suspect(job, max_attempts)
  return job.status == 'queued' and job.attempts > 0 and job.attempts + 1 >= max_attempts
end

-- A claimed job's row of the reply, for a worker whose engine goes on with what a model of this identity generated.
local function claimed_row(job, execution, identity, now)
  local progress = take_up(job, identity)
  return {job.id, job.queue, execution, job.data, job.attempts, stamp(now - (job.waits_since or now)), job.rq_timeout,
    job.is_from_rq and unsupported(job.id) or '', tonumber(job.moves or 0), progress,
    job.watched and 1 or 0, tonumber(job.preemptions or 0)}
end

-- Lease a job: forget what an earlier life, a cancel that came too late, or RQ left on it. It expires no more, unless it
-- comes back not begun. Returns its row.
local function lease(job, execution, worker, identity, lease_end, transition)
  local key = JOB .. job.id
  job.status, job.attempts = 'started', job.attempts + 1
  if job.is_from_rq then call('PERSIST', key) end
  if job.cancel_requested then call('HDEL', key, 'cancel_requested') end
  if job.failed_before then call('HDEL', key, 'error_type', 'error_message', 'expires_at') end
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
  call('HSET', key, 'status', 'started', 'started_at', transition.iso, 'worker_name', worker, 'attempts', job.attempts)
  call('ZADD', WIP .. job.queue, stamp(lease_end), job.id .. ':' .. execution)
  return claimed_row(job, execution, identity, transition.now)
end
