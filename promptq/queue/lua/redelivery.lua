-- Put before reap.lua, take_back.lua and redeliver.lua: what becomes of a running job that was lost. It goes back to
-- the front of its queue, or ends, where a cancel waits or no attempt is left. `loss` has exc_string and may have kind,
-- the error's type and the name of its count, and the message's beginning; else the worker was lost.
-- Returns which, by the name of its count.
local function redeliver(job, transition, max_attempts, loss)
  local kind = loss.kind or 'worker_lost'
  if not job.cancel_requested and job.attempts < tonumber(max_attempts) then
    call('HINCRBY', TOTALS, 'requeued:' .. kind, 1)
    call('HINCRBY', JOB .. job.id, 'moves', 1)
    forget_expiry(job)
    to_front(job)
    return 'requeued'
  end
  if job.cancel_requested then
    end_without_text(job, 'cancelled', transition, {})
    return 'cancelled'
  end
  end_without_text(job, 'failed', transition, {error_type = kind, exc_string = loss.exc_string,
    error_message = (loss.message or 'The worker was lost') .. ' in each of ' .. job.attempts .. ' attempts.'})
  return kind
end
