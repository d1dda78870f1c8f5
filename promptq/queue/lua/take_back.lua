-- Take back what one worker held that is known to be dead, however long its leases still are.
-- ARGV: time|'', result_ttl, failure_ttl, worker, max_attempts, worker_lost exc_string, queue names.
-- Reply: {requeued, worker_lost, cancelled}
local given_time, result_ttl, failure_ttl, worker, max_attempts, lost_trace = unpack(ARGV, 1, 6)
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl, failure_ttl)
local done = {requeued = 0, worker_lost = 0, cancelled = 0}
for i = 7, #ARGV do
  local queue = ARGV[i]
  for _, member in ipairs(call('ZREVRANGE', WIP .. queue, 0, -1)) do
    local id = id_of(member)
    local is_its = redis.pcall('HGET', JOB .. id, 'worker_name') == worker
    local job = is_its and read_job(id, queue)
    if is_its and job.status == 'started' then
      call('ZREM', WIP .. queue, member)
      local outcome = redeliver(job, transition, max_attempts, {exc_string = lost_trace})
      done[outcome] = done[outcome] + 1
    end
  end
end
conclude(transition)
return {done.requeued, done.worker_lost, done.cancelled}
