-- Put before submit.lua: one job's way in. `job` has the fields that submit.lua reads from ARGV. Of the transition are
-- used besides: is_behind (of outbox.lua), told, model, queues (the model's), bound, depth (jobs waiting now), cache_ttl, admitted (how many were), fed
-- (queues that got jobs), flows (of fair.lua), and voided (keys of turns).

-- What was sent before: by a client under its key or id, or by our own connection, which repeats a call whose answer
-- was lost. Returns the job's reply, or nil.
local function repeated(job)
  local seen = job.record ~= '' and call('GET', IDEMPOTENCY .. job.record) or job.id
  if call('HEXISTS', JOB .. seen, 'status') == 0 then return nil end
  local same = (call('HGET', JOB .. seen, 'fingerprint') or '') == job.fingerprint
  return {same and 'repeat' or 'conflict', seen}
end

local function write_job(job, status, cache, transition)
  if transition.depth * 2 < transition.bound then void_turns(job, transition) end
  call('HSET', JOB .. job.id, 'data', job.data, 'status', status, 'origin', job.queue, 'created_at', transition.iso,
    'enqueued_at', transition.iso, 'queued_at', stamp(transition.now), unpack(job.fields))
  if cache then call('HSET', JOB .. job.id, 'cache', cache) end
  if job.record ~= '' then call('SET', IDEMPOTENCY .. job.record, job.id, 'EX', job.keep) end
  transition.admitted = transition.admitted + 1
end

-- The job waits: in its queue, or for the live job with the same cache key.
local function enqueue(job, transition)
  if job.ttl ~= '' then
    local expires_at = stamp(transition.now + job.ttl)
    call('HSET', JOB .. job.id, 'expires_at', expires_at)
    call('ZADD', EXPIRY, expires_at, job.id)
  end
  if job.joins then
    call('ZADD', DEFERRED .. job.queue, stamp(transition.now), job.id)
    return {'join'}
  end
  transition.fed[job.queue] = (transition.fed[job.queue] or 0) + 1
  return {'new', line_up(job, transition.flows)}
end

-- Admit a job, or refuse it. Returns its reply.
local function admit(job, transition)
  local known = repeated(job)
  if known then return known end
  if transition.is_behind and is_event(job, transition.told) then return {'behind'} end
  local text = job.cache_key ~= '' and cached_text(job.cache_key, transition.cache_ttl)
  local bound = bound_for(job, transition.bound, transition.depth, transition.queues, transition.flows)
  if not text and transition.depth >= bound then
    return refuse(job, transition.model, transition.depth, bound, transition.now)
  end
  call('SADD', QUEUE_NAMES, QUEUE .. job.queue) -- the first write, and one that a full server refuses
  if text then
    write_job(job, 'queued', 'hit', transition)
    count(transition, transition.model, 'hits', 1)
    end_job({id = job.id, queue = job.queue, result_ttl = job.keep, owner = job.owner, webhook = job.webhook}, 'succeeded',
      transition, {return_value = text, answered_by = 'cache_hits'})
    return {'hit', text}
  end
  job.joins = job.cache_key ~= '' and join_group(job.cache_key, job.id)
  write_job(job, job.joins and 'deferred' or 'queued', job.joins and 'join', transition)
  transition.depth = transition.depth + 1
  return enqueue(job, transition)
end
