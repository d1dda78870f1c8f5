-- Take back what one worker held that is known to be dead, however long its leases still are.
-- ARGV: now, iso, result_ttl, failure_ttl, worker, max_attempts, worker_lost exc_string.
-- Reply: {requeued, worker_lost, cancelled}
insist()
local at = moment(unpack(ARGV, 1, 4))
local done = {requeued = 0, worker_lost = 0, cancelled = 0}
for _, queue in ipairs(QUEUE_ORDER) do
  for _, member in ipairs(call('ZREVRANGE', WIP .. queue, 0, -1)) do
    local id = string.match(member, '^(.*):')
    local job = call('HGET', JOB .. id, 'worker_name') == ARGV[5] and read(id, queue) or {}
    if job.status == 'started' then
      call('ZREM', WIP .. queue, member)
      local outcome = redeliver(job, at, ARGV[6], ARGV[7])
      done[outcome] = done[outcome] + 1
    end
  end
end
conclude(at)
return {done.requeued, done.worker_lost, done.cancelled}
