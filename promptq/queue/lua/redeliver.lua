-- Take running jobs from a worker that lives, but whose engine lost their texts: to the front of their queues with the
-- attempt counted, or to their ends, where a cancel waits or no attempt is left.
-- ARGV: time|'', result_ttl, failure_ttl, max_attempts, error type, then per claim: queue, id, execution, message,
--       exc_string; the last one given ends up first in line.
-- Reply: {requeued, failed, cancelled}
local given_time, result_ttl, failure_ttl, max_attempts, kind = unpack(ARGV, 1, 5)
local FIRST_CLAIM, VALUES = 6, 5
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl, failure_ttl)
local done = {requeued = 0, cancelled = 0, [kind] = 0}
for i = FIRST_CLAIM, #ARGV, VALUES do
  local queue, id, execution, message, exc_string = unpack(ARGV, i, i + VALUES - 1)
  local holds = call('ZREM', WIP .. queue, id .. ':' .. execution) == 1
  local job = read_job(id, queue)
  if holds and job.status == 'started' then
    local outcome = redeliver(job, transition, max_attempts, {kind = kind, message = message, exc_string = exc_string})
    done[outcome] = done[outcome] + 1
  elseif holds then
    leave_group(job)
  end
end
conclude(transition)
return {done.requeued, done[kind], done.cancelled}
