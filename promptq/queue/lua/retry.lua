-- Give a failed job a new life: queued again, with all its attempts. It does not join, nor ask the cache.
-- ARGV: time|'', id, bound on waiting jobs, bound on the outbox, token of this call (as of cancel.lua), cost beside
--       other keys' jobs|'', its model, names of the model's queues.
-- Reply: {'queued'} | {'missing'} | {'refused', status, error_type|''} | {'full', depth, seconds to its turn|''}
--        | {'behind'}
local given_time, id, bound, outbox_bound, token, cost, model = unpack(ARGV, 1, 7)
local now, job, queues, flows = clock(given_time), read_job(id), {unpack(ARGV, 8)}, {}
job.cost = job.owner and tonumber(cost)
if not job.status or is_foreign(job) then return {'missing'} end
if call('HGET', JOB .. id, 'retried_by') == token then return {'queued'} end
if job.status ~= 'failed' or job.error_type == 'expired' then return {'refused', job.status, job.error_type or ''} end
if is_behind(outbox_bound) and is_event(job, {}) then return {'behind'} end
local depth = count_waiting(queues)
bound = bound_for(job, tonumber(bound), depth, queues, flows)
if depth >= bound then return refuse(job, model, depth, bound, now) end
local key = JOB .. id
call('SADD', QUEUE_NAMES, QUEUE .. job.queue) -- the first write, and one that a full server refuses
call('ZREM', FAILED .. job.queue, id)
call('HDEL', key, 'error_type', 'error_message', 'expires_at', 'cancel_requested', 'ended_at', 'ended_by')
begin_anew(job)
call('HSET', key, 'status', 'queued', 'queued_at', stamp(now), 'attempts', 0, 'started_at', '', 'worker_name', '',
  'retried_by', token)
call('PERSIST', key)
call('HINCRBY', TOTALS, 'requeued:retry', 1)
line_up(job, flows)
announce(WAKE, job.queue)
return {'queued'}
