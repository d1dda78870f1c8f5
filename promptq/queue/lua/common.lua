-- Put before every script but read, after the key names of keys.py.
-- A call of a command costs more than most commands: so few calls, with many arguments each, of all jobs together.
local call = redis.call

-- One command on one key with any number of values: Lua cannot unpack more than some thousands at once.
-- Returns what the last call did.
local function bulk(command, key, values)
  local reply
  for i = 1, #values, 1000 do reply = call(command, key, unpack(values, i, math.min(i + 999, #values))) end
  return reply
end

-- Note one or two values under a key, for one call with them all later.
local function note(lists, key, first, second)
  local list = lists[key]
  if not list then list = {}; lists[key] = list end
  list[#list + 1] = first
  if second then list[#list + 1] = second end
end

local ENDINGS = {
  succeeded = {status = 'finished', registry = FINISHED, type = '1', ttl = 'result_ttl'},
  cancelled = {status = 'canceled', registry = CANCELED, type = '3', ttl = 'result_ttl'},
  failed = {status = 'failed', registry = FAILED, type = '2', ttl = 'failure_ttl'},
  expired = {status = 'failed', registry = FAILED, type = '2', ttl = 'failure_ttl'},
}

-- A full server (maxmemory) refuses a script at its first write, if that one needs memory, and later ones never. What
-- keeps or ends a job that was admitted must go on there, so such a script first writes something that needs none.
local function insist() call('PERSIST', TOTALS) end

-- Jobs that wait, over all queues, those that joined another included.
local function waiting()
  local depth = 0
  for _, name in ipairs(QUEUE_ORDER) do
    depth = depth + call('LLEN', QUEUE .. name) + call('ZCARD', DEFERRED .. name)
  end
  return depth
end

-- Refuse a job. Each one refused gets a turn of its own, one job's time after the last: told the same moment, all would
-- come back together and find room for one. Without a known drain rate there are no turns.
local function refuse(depth, bound, now)
  local rate = tonumber(call('GET', DRAIN_RATE) or '') or 0
  if rate <= 0 then return {'full', depth, ''} end
  local turn = math.max(tonumber(call('GET', TURN) or '') or 0, now + (depth - bound) / rate) + 1 / rate
  call('SET', TURN, string.format('%.3f', turn), 'EX', 600)
  return {'full', depth, string.format('%.3f', turn - now)}
end

-- What of a job the transitions need, by name; false for a field that it has not. What is no hash is no job: it must not
-- keep others from being read. (A table that is written out is made in one piece; one that grows is made anew each time.)
local function read(id, queue)
  local values = redis.pcall('HMGET', JOB .. id, 'status', 'origin', 'attempts', 'cache_key', 'expires_at',
    'cancel_requested', 'error_type', 'result_ttl', 'failure_ttl')
  return {id = id, queue = queue or values[2], status = values[1], attempts = values[3], cache_key = values[4],
    expires_at = values[5], cancel_requested = values[6], error_type = values[7], result_ttl = values[8],
    failure_ttl = values[9]}
end

-- Put name and value behind what is in `fields`, where there is a value.
local function add(fields, name, value)
  if value and value ~= '' then
    local n = #fields
    fields[n + 1], fields[n + 2] = name, value
  end
end

-- How many seconds an ended job is kept: its own time, or that of all.
local function lifetime(own, at, kind)
  own = own and tonumber(own) or 0
  return own > 0 and math.min(own, 1e10) or at[kind] -- with longer ones the server would refuse the whole script
end

local function server_ms()
  local seconds, microseconds = unpack(call('TIME'))
  return 1000 * seconds + microseconds / 1000
end

-- Until when an ended job is kept, by its own time or that of all: in ms of the server's clock, as it ends keys, and in
-- seconds of the caller's for a registry. Those that are settled at once share both: they cost as much as a command.
local function keep_until(own, at, kind)
  local ttl = lifetime(own, at, kind)
  local known = at.untils[ttl]
  if not known then
    known = {string.format('%.0f', server_ms() + 1000 * ttl), string.format('%.6f', at.now + ttl)}
    at.untils[ttl] = known
  end
  return known[1], known[2]
end

-- An entry of RQ's results stream; returns its id. A results key that is no stream loses its own job's text only: an
-- error here would leave those settled with it without a lease and without an end. Lives that ended badly leave ten, as
-- with RQ.
local function record(results, kind, how)
  local worker, text, trace = how.worker or '', how.return_value or '', how.exc_string or ''
  if trace == '' and text ~= '' then
    return redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', worker, 'return_value', text)
  end
  local entry = {'type', kind, 'worker_name', worker}
  add(entry, 'return_value', text)
  add(entry, 'exc_string', trace)
  return redis.pcall('XADD', results, 'MAXLEN', '10', '*', unpack(entry))
end

-- The moment of a transition, and what ended in it, for conclude(at): now in seconds, iso as RQ writes times, and how many
-- seconds ended jobs are kept.
local function moment(now, iso, result_ttl, failure_ttl)
  return {now = tonumber(now), iso = iso, result_ttl = tonumber(result_ttl), failure_ttl = tonumber(failure_ttl),
    untils = {}, ended = {}, totals = {}, registries = {}}
end

-- Bring a job to its one terminal state. `how` may have: worker, error_type, error_message, and for RQ's results stream
-- return_value and exc_string, both encoded by the caller.
local function settle(job, state, at, how)
  local ending, key, results = ENDINGS[state], JOB .. job.id, RESULTS .. job.id
  local over, score = keep_until(job[ending.ttl], at, ending.ttl)
  if (how.error_type or '') == '' then
    call('HSET', key, 'status', ending.status, 'ended_at', at.iso)
  else
    call('HSET', key, 'status', ending.status, 'ended_at', at.iso, 'error_type', how.error_type,
      'error_message', how.error_message)
  end
  call('PEXPIREAT', key, over)
  job.entry = record(results, ending.type, how)
  call('PEXPIREAT', results, over)
  if job.expires_at then call('ZREM', EXPIRY, job.id) end
  note(at.registries, ending.registry .. job.queue, score, job.id)
  at.ended[#at.ended + 1] = job.id
  at.totals[state] = (at.totals[state] or 0) + 1
end

-- Register, count and announce what was settled, once for all.
local function conclude(at)
  for registry, entries in pairs(at.registries) do bulk('ZADD', registry, entries) end
  for state, count in pairs(at.totals) do call('HINCRBY', TOTALS, state, count) end
  if at.ended[1] then call('PUBLISH', DONE, table.concat(at.ended, ' ')) end
end

-- Put a job that ran, or waited on another, at the front of its queue.
local function to_front(job)
  call('HSET', JOB .. job.id, 'status', 'queued', 'started_at', '', 'worker_name', '')
  call('LPUSH', QUEUE .. job.queue, job.id)
  call('PUBLISH', WAKE, job.queue)
end

-- The live job that leads a join group, or nil. A job that joined moves up when those before it have ended.
local function leader(cache_key)
  local id = call('LINDEX', JOIN .. cache_key, 0)
  while id do
    local job = read(id)
    if job.status == 'queued' or job.status == 'started' then return id end
    if job.status == 'deferred' then
      call('ZREM', DEFERRED .. job.queue, id)
      call('HDEL', JOB .. id, 'cache')
      to_front(job)
      return id
    end
    call('LPOP', JOIN .. cache_key)
    id = call('LINDEX', JOIN .. cache_key, 0)
  end
end

-- Take a job that ends without a text out of its join group; the next one leads.
local function leave(job)
  if not job.cache_key then return end
  local first = call('HGET', LEADERS, job.cache_key)
  if first ~= job.id then call('LREM', JOIN .. job.cache_key, 1, job.id) end
  if first == job.id or not leader(job.cache_key) and first == '' then call('HDEL', LEADERS, job.cache_key) end
end

-- What becomes of a running job whose worker is gone: back to the front of its queue, or its end, where a cancel waits
-- or no attempt is left. Returns which, by the name of its count.
local function redeliver(job, at, max_attempts, exc_string)
  local cancel = job.cancel_requested
  if not cancel and tonumber(job.attempts or 0) < tonumber(max_attempts) then
    call('HINCRBY', TOTALS, 'requeued:worker_lost', 1)
    to_front(job)
    return 'requeued'
  end
  settle(job, cancel and 'cancelled' or 'failed', at, cancel and {} or {error_type = 'worker_lost',
    exc_string = exc_string, error_message = 'The worker was lost in each of ' .. job.attempts .. ' attempts.'})
  leave(job)
  return cancel and 'cancelled' or 'worker_lost'
end

-- End a waiting job that its ttl_seconds has overtaken.
local function expire(job, at, exc_string)
  settle(job, 'expired', at, {error_type = 'expired', exc_string = exc_string,
    error_message = 'The job waited longer than its ttl_seconds.'})
  leave(job)
end
