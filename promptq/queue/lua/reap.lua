-- Take back what dead workers held, expire what waited too long, have those that joined led by a live job, and trim
-- what RQ leaves behind.
-- ARGV: time|'', result_ttl, failure_ttl, spare leases ('1'|''), max_attempts, the most jobs of a kind, worker_lost
--       exc_string, expired exc_string, queue names.
-- Reply: {requeued, worker_lost, cancelled, expired}
local given_time, result_ttl, failure_ttl, spare_leases, max_attempts, most = unpack(ARGV, 1, 6)
local lost_trace, expired_trace = unpack(ARGV, 7, 8)
local FIRST_QUEUE, GROUPS_A_PASS = 9, 20
write_on_a_full_server()
local transition = new_transition(given_time, result_ttl, failure_ttl)
local done, groups = {requeued = 0, worker_lost = 0, cancelled = 0, expired = 0}, new_groups()
local lease_cutoff = spare_leases == '1' and '-inf' or stamp(transition.now + LEASE_GRACE)

-- RQ's own workers keep what they run in the same registry, under shorter leases: that is not ours to judge.
local function take_back_expired_leases(queue)
  for _, member in ipairs(call('ZREVRANGEBYSCORE', WIP .. queue, lease_cutoff, '-inf', 'LIMIT', 0, most)) do
    local job = read_job(id_of(member), queue)
    if not is_unknown(job) and not is_foreign(job) then
      call('ZREM', WIP .. queue, member)
      if job.status == 'started' then
        call('HINCRBY', TOTALS, 'lease_expiries', 1)
        local outcome = redeliver(job, transition, max_attempts, {exc_string = lost_trace})
        done[outcome] = done[outcome] + 1
      else
        leave_group(job)
      end
    end
  end
end

for i = FIRST_QUEUE, #ARGV do
  local queue = ARGV[i]
  take_back_expired_leases(queue)
  add_some_that_joined(groups, queue, most)
  if call('EXISTS', QUEUE .. queue) == 0 then call('UNLINK', START_TAGS .. queue, FINISH_TAGS .. queue) end
  for _, registry in ipairs({FINISHED, FAILED, CANCELED}) do
    call('ZREMRANGEBYSCORE', registry .. queue, '-inf', stamp(transition.now))
  end
end
add_some_groups(groups, GROUPS_A_PASS)
keep_led(groups)

for _, id in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', stamp(transition.now), 'LIMIT', 0, most)) do
  local job = read_job(id)
  call('ZREM', EXPIRY, id)
  if is_waiting(job) then
    done.expired = done.expired + 1
    withdraw(job)
    expire(job, transition, expired_trace)
  end
end
conclude(transition)
return {done.requeued, done.worker_lost, done.cancelled, done.expired}
