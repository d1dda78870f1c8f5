-- Give running jobs back, unharmed: to the front of their queues, with the attempt not counted.
-- ARGV: now, iso, result_ttl, then per claim: queue, id, execution; the last one given ends up first in line.
-- Reply: the number of jobs put back or, where a cancel was waiting, cancelled.
insist()
local at = moment(unpack(ARGV, 1, 3))
local released = 0
for i = 4, #ARGV, 3 do
  local queue, id, execution = unpack(ARGV, i, i + 2)
  local held = call('ZREM', WIP .. queue, id .. ':' .. execution) == 1
  local job = held and read(id, queue) or {}
  if job.status == 'started' then
    released = released + 1
    if job.cancel_requested then
      settle(job, 'cancelled', at, {})
      leave(job)
    else
      call('HINCRBY', JOB .. id, 'attempts', -1)
      call('HINCRBY', TOTALS, 'requeued:drain', 1)
      to_front(job)
    end
  else
    leave(job)
  end
end
conclude(at)
return released
