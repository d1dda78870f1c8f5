-- Give running jobs back unharmed: to the front of their queues, with the attempt not counted. One that an upstream
-- server did not begin may expire by its ttl_seconds as before.
-- ARGV: time|'', result_ttl, reason ('drain'|'preempted'|'upstream'), then per claim: queue, id, execution;
--       the last one given ends up first in line.
-- Reply: the number of jobs put back or, where a cancel was waiting, cancelled.
local given_time, result_ttl, reason = unpack(ARGV, 1, 3)
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl)
local released = 0
for i = 4, #ARGV, 3 do
  local queue, id, execution = unpack(ARGV, i, i + 2)
  local holds = call('ZREM', WIP .. queue, id .. ':' .. execution) == 1
  local job = read_job(id, queue)
  if holds and job.status == 'started' then
    released = released + 1
    if job.cancel_requested then
      end_without_text(job, 'cancelled', transition, {})
    else
      call('HINCRBY', JOB .. id, 'attempts', -1)
      call('HINCRBY', JOB .. id, 'moves', 1)
      if reason == 'preempted' then call('HINCRBY', JOB .. id, 'preemptions', 1) end
      call('HINCRBY', TOTALS, 'requeued:' .. reason, 1)
      if reason ~= 'upstream' then forget_expiry(job) end
      if reason == 'upstream' and job.expires_at then call('ZADD', EXPIRY, job.expires_at, id) end
      to_front(job)
    end
  elseif holds then
    leave_group(job)
  end
end
conclude(transition)
return released
