-- Whom to wake. A worker that got less than it had room for is noted as ready, and woken for the next job: one worker
-- for one job, where a message to all would have a thousand of them ask for it. A model's workers are noted under its
-- most urgent queue.

-- Tell so many ready workers of a job in `queue`. They are ready no more until they have looked; one that nobody hears
-- is gone. Returns how many jobs nobody was told of.
local function wake_ready(most_urgent, queue, jobs)
  while jobs > 0 do
    local worker = call('SPOP', READY_WORKERS .. most_urgent)
    if not worker then return jobs end
    local heard = redis.pcall('PUBLISH', WAKE .. ':' .. worker, queue)
    if type(heard) == 'number' and heard > 0 then jobs = jobs - 1 end
  end
  return 0
end

-- The same; where too few are ready all are told, for a row may give way to the job, if not to one of the least urgent
-- queue.
local function wake_for(queues, queue, jobs)
  if wake_ready(queues[1], queue, jobs) > 0 and queue ~= queues[#queues] then announce(WAKE, queue) end
end

-- Note whether a worker has room for more than it got. One that got nothing of what there is leaves it to another.
-- Idle workers claim at each heartbeat, so that a set which has come to its end is soon there again.
local function note_room(most_urgent, worker, has_room, got)
  local ready = READY_WORKERS .. most_urgent
  local is_new = call(has_room and 'SADD' or 'SREM', ready, worker) == 1 and has_room
  if is_new then call('EXPIRE', ready, READY_SECONDS) end
  if not has_room and got == 0 then wake_ready(most_urgent, most_urgent, 1) end
end
