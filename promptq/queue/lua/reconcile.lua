-- Put jobs back whose place is lost: by a server that evicts, or by a hand that deletes a key. A queued job that is in
-- no list goes to the front, having waited; a running one that nobody holds too, and its attempt does not count.
-- ARGV: time|'', result_ttl, ids.
-- Reply: how many were put back.
local given_time, result_ttl = unpack(ARGV, 1, 2)
write_on_a_full_server()
local transition, groups = new_transition(given_time, result_ttl), new_groups()
local put_back, held_by_queue = 0, {}

local function is_held(job)
  local held = held_by_queue[job.queue]
  if not held then
    held = {}
    for _, member in ipairs(call('ZRANGE', WIP .. job.queue, 0, -1)) do held[id_of(member)] = true end
    held_by_queue[job.queue] = held
  end
  return held[job.id]
end

local function restore(job)
  if job.cancel_requested then
    end_without_text(job, 'cancelled', transition, {})
  else
    to_front(job)
  end
end

local HAS_ITS_PLACE = {
  queued = function(job) return call('LPOS', QUEUE .. job.queue, job.id) end,
  started = is_held,
  deferred = function(job) return call('ZSCORE', DEFERRED .. job.queue, job.id) end,
}
local PUT_BACK = {
  queued = restore,
  started = function(job)
    call('HINCRBY', JOB .. job.id, 'attempts', -1)
    forget_expiry(job)
    restore(job)
  end,
  deferred = function(job)
    call('ZADD', DEFERRED .. job.queue, stamp(transition.now), job.id)
    add_joined(groups, job)
  end,
}

for i = 3, #ARGV do
  local job = read_job(ARGV[i])
  local is_live = HAS_ITS_PLACE[job.status] and job.queue and job.queued_at and not is_foreign(job)
  -- `rq requeue` leaves the lifetime of the failed job on it.
  if is_live and not call('HGET', JOB .. job.id, 'ttl') then call('PERSIST', JOB .. job.id) end
  if is_live and is_waiting(job) and job.expires_at then call('ZADD', EXPIRY, job.expires_at, job.id) end
  if is_live and not HAS_ITS_PLACE[job.status](job) then
    PUT_BACK[job.status](job)
    put_back = put_back + 1
  end
end
keep_led(groups)
conclude(transition)
return put_back
