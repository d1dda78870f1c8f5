-- Lease up to `count` waiting jobs of some queues to one worker. Between queues the head goes first whose queued_at is
-- least once each queue's handicap (0, 1, 2 x ageing) is added: the first queue before the others, and nothing
-- starves. Cancelled, expired and vanished jobs are dropped on the way. A job that lost its worker in every attempt
-- but the last may be what kills them: it waits for an idle worker and is claimed alone, so that it takes no other job
-- with it.
-- ARGV: time|'', count, lease seconds, worker, token, ageing, max_attempts, busy ('1'|''), failure_ttl, expired
--       exc_string, queue names in their order.
-- Reply: {{id, queue, execution, data, attempts, seconds it waited, RQ's timeout|'', RQ features we refuse|''}, ...}
local given_time, count, lease_seconds, worker, token, ageing, max_attempts, busy, failure_ttl, expired_trace =
  unpack(ARGV, 1, 10)
write_on_a_full_server()
count, max_attempts = tonumber(count), tonumber(max_attempts)
local transition = new_transition(given_time, nil, failure_ttl)
local lease_end = transition.now + lease_seconds + LEASE_GRACE
local lines, claimed, overdue = {}, {}, {}

-- Look at the next job of a queue; nothing is taken out yet.
local function look(line)
  local place = line.seen % count
  if place == 0 then line.ids = call('LRANGE', QUEUE .. line.queue, line.seen, line.seen + count - 1) end
  local id = line.ids[place + 1]
  line.seen = line.seen + 1
  line.job = id and read_candidate(id, line.queue, transition.now)
  line.rank = line.job and (line.job.queued_at or 0) + line.handicap
  line.is_suspect = line.job and line.job.attempts > 1 and line.job.attempts >= max_attempts
end

local function foremost()
  local first
  for _, line in ipairs(lines) do
    if line.job and (not first or line.rank < first.rank) then first = line end
  end
  return first
end

for i = 11, #ARGV do
  lines[#lines + 1] = {queue = ARGV[i], seen = 0, handicap = (i - 11) * ageing}
  look(lines[#lines])
end
for _ = 1, count + 100 do
  local line = foremost()
  if not line or #claimed >= count or line.is_suspect and (busy == '1' or #claimed > 0) then break end
  local job, was_suspect = line.job, line.is_suspect
  if job.status == 'queued' and job.overdue then
    overdue[#overdue + 1] = job
  elseif job.status == 'queued' then
    claimed[#claimed + 1] = lease(job, token .. #claimed, worker, lease_end, transition)
  end
  look(line)
  if was_suspect and #claimed > 0 then break end
end
for _, line in ipairs(lines) do if line.seen > 1 then call('LPOP', QUEUE .. line.queue, line.seen - 1) end end
-- Only now: what waited for an expired job is put at the front of the queue.
for _, job in ipairs(overdue) do expire(read_job(job.id, job.queue), transition, expired_trace) end
conclude(transition)
return claimed
