-- Lease up to `count` waiting jobs to one worker, straight from the queue list into rq:wip.
-- Between queues the head goes first whose queued_at is least, once each queue's handicap (0, 1, 2 x ageing) is added:
-- high before default before low, and nothing starves. Cancelled, expired and vanished jobs are dropped on the way.
-- A job that lost its worker in every attempt but the last may be what kills them: it waits for an idle one, and
-- is claimed alone, so that it takes nobody with it.
-- KEYS: none fixed. ARGV: count, now, iso, wip score, worker, token, ageing, max_attempts, busy ('1'|''), failure_ttl,
--       expired exc_string.
-- Reply: {{id, queue, execution, data, attempts, queued_at, timeout|'', RQ features we refuse|'', traceparent|''}, ...}
insist()
local count, now, iso, score, worker, token, ageing, max_attempts, busy = unpack(ARGV, 1, 9)
local at = {now = tonumber(now), iso = iso, failure_ttl = ARGV[10]}
local FOREIGN = {'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks',
  'rate_limit_key', 'repeats_left'}

local function head(i)
  local id = call('LINDEX', QUEUE .. QUEUE_ORDER[i], 0)
  if not id then return {rank = math.huge} end
  local queued_at, attempts, requeued = unpack(call('HMGET', JOB .. id, 'queued_at', 'attempts', 'error_type'))
  if not queued_at and call('EXISTS', JOB .. id) == 1 then
    queued_at = now
    call('HSET', JOB .. id, 'queued_at', now)
  end
  local lost = not requeued and tonumber(attempts or '') or 0
  return {rank = (tonumber(queued_at or '') or 0) + (i - 1) * tonumber(ageing),
    alone = lost > 0 and lost + 1 >= tonumber(max_attempts)}
end

local function refused(job)
  local names = {}
  for i, name in ipairs(FOREIGN) do
    local value = job[9 + i]
    if value and value ~= '' and value ~= '0' then names[#names + 1] = name end
  end
  return table.concat(names, ', ')
end

local heads, claimed = {}, {}
for i = 1, #QUEUE_ORDER do heads[i] = head(i) end
for _ = 1, count + 100 do
  local first = 1
  for i = 2, #heads do if heads[i].rank < heads[first].rank then first = i end end
  local alone = heads[first].alone
  if heads[first].rank == math.huge or #claimed >= tonumber(count) then break end
  if alone and (busy == '1' or #claimed > 0) then break end
  local queue = QUEUE_ORDER[first]
  local id = call('LPOP', QUEUE .. queue)
  local job = call('HMGET', JOB .. id, 'data', 'status', 'attempts', 'expires_at', 'error_type', 'queued_at',
    'timeout_seconds', 'timeout', 'traceparent', unpack(FOREIGN))
  local requeued = job[5]
  if job[1] and job[2] == 'queued' and job[4] and not requeued and tonumber(job[4]) <= at.now then
    expire(id, queue, at, ARGV[11])
  elseif job[1] and job[2] == 'queued' then
    local attempts, execution = (requeued and 0 or tonumber(job[3] or '') or 0) + 1, token .. #claimed
    call('HSET', JOB .. id, 'status', 'started', 'started_at', iso, 'worker_name', worker, 'attempts', attempts)
    call('HDEL', JOB .. id, 'cancel_requested')
    if requeued then call('HDEL', JOB .. id, 'error_type', 'error_message', 'expires_at') end
    call('PERSIST', JOB .. id)
    call('ZREM', EXPIRY, id)
    call('ZADD', WIP .. queue, score, id .. ':' .. execution)
    claimed[#claimed + 1] = {id, queue, execution, job[1], attempts, job[6], job[7] or job[8] or '',
      refused(job), job[9] or ''}
  end
  if alone and #claimed > 0 then break end
  heads[first] = head(first)
end
return claimed
