-- Lease up to `count` waiting jobs of some queues to one worker. Between queues the head goes first whose queued_at is
-- least once each queue's handicap (0, 1, 2 x ageing) is added, so nothing starves. Cancelled, expired and vanished
-- jobs are dropped on the way. A suspect waits for an idle worker and is claimed alone, so that it takes no other with
-- it. Jobs of plain RQ stay until their `calls` says that they are for us, and all do while `rq suspend` is in force.
-- ARGV: time|'', count, lease seconds, worker, token, whether the call with this token was made before and its
--       answer lost ('1'|''), ageing, max_attempts, busy ('1'|''), identity of the model whose earlier runs the worker
--       goes on with|'', failure_ttl, expired exc_string, how many of the queues it claims from, names of all queues.
-- Reply: {{id, queue, execution, data, attempts, seconds waited, RQ's timeout|'', RQ features we refuse|'', moves, {ids
-- of tokens, logprobs|'', ...}, watched (1|0), preemptions}, ...}; {id, queue, '', data} of a job whose call is unread.
local given_time, count, lease_seconds, worker, token, was_made_before, ageing, max_attempts, busy, identity,
  failure_ttl, expired_trace, looks = unpack(ARGV, 1, 13)
local FIRST_QUEUE, DROPPED_AT_MOST = 14, 1000
write_on_a_full_server()
count, max_attempts = tonumber(count), tonumber(max_attempts)
local transition = new_transition(given_time, nil, failure_ttl)
local lease_end = transition.now + lease_seconds + LEASE_GRACE
local lines, claimed, unknown, overdue = {}, {}, {}, {}

-- Take one job that was looked at: it is claimed, dropped, or left where it is.
local function take(line)
  local job = line.job
  if must_stay(job) then
    line.left[#line.left + 1] = job.id
    if is_unknown(job) then unknown[#unknown + 1] = {job.id, job.queue, '', job.data} end
  elseif job.status == 'queued' and is_overdue(job, transition.now) then
    job.status = 'expired'
    overdue[#overdue + 1] = job
  elseif job.status == 'queued' then
    claimed[#claimed + 1] = lease(job, token .. #claimed, worker, identity, lease_end, transition)
  end
end

-- Whether there is room for more than what could be claimed.
local function claim()
  for _ = 1, count + DROPPED_AT_MOST do
    local line = foremost(lines)
    local must_be_alone = line and is_suspect(line.job, max_attempts)
    if not line then return #claimed < count end
    if #claimed >= count or must_be_alone and (busy == '1' or #claimed > 0) then return false end
    take(line)
    look(line, transition.now)
    if must_be_alone and #claimed > 0 then return false end
  end
  return false
end

local last_leased = was_made_before == '1' and #ARGV or 0
for i = FIRST_QUEUE, last_leased do add_leased(claimed, ARGV[i], token, identity, transition.now) end
if #claimed > 0 or call('EXISTS', SUSPENDED) == 1 then return claimed end
for i = FIRST_QUEUE, FIRST_QUEUE + looks - 1 do
  lines[#lines + 1] = begin_line(ARGV[i], (i - FIRST_QUEUE) * ageing, transition.now)
end
local has_room = claim()
for _, line in ipairs(lines) do close_up(line) end
if tonumber(looks) == #ARGV - FIRST_QUEUE + 1 then note_room(ARGV[FIRST_QUEUE], worker, has_room, #claimed) end
-- Only now: what waited for an expired job is put at the front of the queue.
for _, job in ipairs(overdue) do expire(read_job(job.id, job.queue), transition, expired_trace) end
conclude(transition)
for _, row in ipairs(unknown) do claimed[#claimed + 1] = row end
return claimed
