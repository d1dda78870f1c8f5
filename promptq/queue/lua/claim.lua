-- Lease up to `count` waiting jobs to one worker, straight from the queue list into rq:wip.
-- Between queues the head goes first whose queued_at is least, once each queue's handicap (0, 1, 2 x ageing) is added:
-- high before default before low, and nothing starves. Cancelled, expired and vanished jobs are dropped on the way.
-- A job that lost its worker in every attempt but the last may be what kills them: it waits for an idle one, and
-- is claimed alone, so that it takes nobody with it.
-- KEYS: none fixed. ARGV: count, now, iso, wip score, worker, token, ageing, max_attempts, busy ('1'|''), failure_ttl,
--       expired exc_string.
-- Reply: {{id, queue, data, attempts, queued_at, request_id|'' and, of a job that has something unusual, timeout|'',
--         RQ features we refuse|'', traceparent|''}, ...}; the execution of each is the token and its place, from 0.
insist()
local count, now, iso, score, worker, token, ageing, max_attempts, busy = tonumber(ARGV[1]), unpack(ARGV, 2, 9)
max_attempts = tonumber(max_attempts)
local at = moment(now, iso, nil, ARGV[10])
local lines, claimed, expired, leases = {}, {}, {}, {}

-- Look at the next job of a queue. Nothing is taken out yet.
local function look(line)
  local place = line.seen % count
  if place == 0 then line.ids = call('LRANGE', QUEUE .. line.queue, line.seen, line.seen + count - 1) end
  line.seen, line.job, line.rank = line.seen + 1, nil, nil
  if not line.ids[place + 1] then return end
  line.job = candidate(line.ids[place + 1], line.queue, now)
  line.alone = line.job.attempts > 1 and line.job.attempts >= max_attempts
end

-- A number is made of a text only where two queues have jobs.
local function rank(line)
  line.rank = line.rank or (tonumber(line.job.queued_at) or 0) + line.handicap
  return line.rank
end

local function foremost()
  local first
  for i = 1, #lines do
    local line = lines[i]
    if line.job and (not first or rank(line) < rank(first)) then first = line end
  end
  return first
end

local function start(job, execution)
  call('HSET', JOB .. job.id, 'status', 'started', 'started_at', iso, 'worker_name', worker, 'attempts', job.attempts)
  note(leases, WIP .. job.queue, score, job.id .. ':' .. execution)
  local row = {job.id, job.queue, job.data, job.attempts, job.queued_at, job.request_id}
  if job.unusual then
    renewed(job)
    row[7], row[8], row[9] = job.timeout or '', job.refused, job.traceparent
  end
  return row
end

for i, queue in ipairs(QUEUE_ORDER) do
  lines[i] = {queue = queue, seen = 0, handicap = (i - 1) * tonumber(ageing)}
  look(lines[i])
end
for _ = 1, count + 100 do
  local line = foremost()
  if not line or #claimed >= count or line.alone and (busy == '1' or #claimed > 0) then break end
  local job, alone = line.job, line.alone
  if job.status == 'queued' and job.deadline and job.deadline <= at.now then expired[#expired + 1] = job
  elseif job.status == 'queued' then claimed[#claimed + 1] = start(job, token .. #claimed) end
  look(line)
  if alone and #claimed > 0 then break end
end
for _, line in ipairs(lines) do if line.seen > 1 then call('LPOP', QUEUE .. line.queue, line.seen - 1) end end
for wip, entries in pairs(leases) do bulk('ZADD', wip, entries) end
for _, job in ipairs(expired) do expire(read(job.id, job.queue), at, ARGV[11]) end
conclude(at)
return claimed
