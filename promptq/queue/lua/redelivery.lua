-- Put before reap.lua and take_back.lua: what becomes of a running job whose worker is gone. It goes back to the front
-- of its queue, or ends, where a cancel waits or no attempt is left. Returns which, by the name of its count.
local function redeliver(job, transition, max_attempts, exc_string)
  if not job.cancel_requested and job.attempts < tonumber(max_attempts) then
    call('HINCRBY', TOTALS, 'requeued:worker_lost', 1)
    call('HINCRBY', JOB .. job.id, 'moves', 1)
    to_front(job)
    return 'requeued'
  end
  if job.cancel_requested then
    end_without_text(job, 'cancelled', transition, {})
    return 'cancelled'
  end
  end_without_text(job, 'failed', transition, {error_type = 'worker_lost', exc_string = exc_string,
    error_message = 'The worker was lost in each of ' .. job.attempts .. ' attempts.'})
  return 'worker_lost'
end
