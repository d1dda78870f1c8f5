-- Put before the scripts in which jobs end.
local ENDINGS = {
  succeeded = {status = 'finished', registry = FINISHED, result_type = '1', lifetime = 'result_ttl'},
  cancelled = {status = 'canceled', registry = CANCELED, result_type = '3', lifetime = 'result_ttl'},
  failed = {status = 'failed', registry = FAILED, result_type = '2', lifetime = 'failure_ttl'},
  expired = {status = 'failed', registry = FAILED, result_type = '2', lifetime = 'failure_ttl'},
}

-- What all changes of one script share: their time, how many seconds ended jobs are kept (a script that ends none in
-- that way gives none), and what `conclude` tells.
local function new_transition(given_time, result_ttl, failure_ttl)
  local now = clock(given_time)
  return {now = now, iso = iso_time(now), result_ttl = tonumber(result_ttl), failure_ttl = tonumber(failure_ttl),
    ended = {}, events = {}, totals = {}, usage = {}}
end

-- Add an entry to RQ's results stream, and return its id. Lives that ended badly leave ten, as with RQ. A results key
-- that is no stream costs its own job the text only, hence pcall.
local function add_result(job, result_type, outcome)
  local entry = {'type', result_type, 'worker_name', outcome.worker or ''}
  for _, name in ipairs({'return_value', 'exc_string'}) do
    local value = outcome[name] or ''
    if value ~= '' then entry[#entry + 1] = name; entry[#entry + 1] = value end
  end
  return redis.pcall('XADD', RESULTS .. job.id, 'MAXLEN', '10', '*', unpack(entry))
end

-- Bring a job to its one terminal state. `outcome` may have worker, return_value, error_type, error_message,
-- exc_string, and by: what tells a repeat of the call that ended it; tokens and answered_by as note_usage has them.
local function end_job(job, state, transition, outcome)
  local ending, key = ENDINGS[state], JOB .. job.id
  local seconds = lifetime(job, ending.lifetime, transition)
  local by = outcome.by and {'ended_by', outcome.by} or {}
  call('HSET', key, 'status', ending.status, 'ended_at', transition.iso, unpack(by))
  if (outcome.error_type or '') ~= '' then
    call('HSET', key, 'error_type', outcome.error_type, 'error_message', outcome.error_message)
  end
  job.entry = add_result(job, ending.result_type, outcome)
  keep(key, seconds)
  keep(RESULTS .. job.id, seconds)
  call('ZADD', ending.registry .. job.queue, stamp(transition.now + seconds), job.id)
  forget_expiry(job)
  if job.has_progress then call('EXPIRE', PROGRESS .. job.id, PROGRESS_SECONDS) end
  count(transition, model_of(job.queue), state, 1)
  note_usage(job, state, outcome, transition.usage)
  transition.ended[#transition.ended + 1] = job.id
  transition.events[#transition.events + 1] = {id = job.id, state = state, owner = job.owner,
    webhook = job.webhook}
end

-- Count and announce what has ended, once for all.
local function conclude(transition)
  write_totals(transition)
  write_usage(transition)
  write_events(transition.events)
  if transition.ended[1] then announce(DONE, table.concat(transition.ended, ' ')) end
end
