-- Put before the scripts in which jobs join or leave. Live jobs with the same cache key are a group: the first one, the
-- leader, is generated, and the others wait for its text. GROUPS has their ids by cache key, with spaces between.
local function read_group(cache_key) return call('HGET', GROUPS, cache_key) or '' end

local function write_group(cache_key, group)
  if group == '' then call('HDEL', GROUPS, cache_key) else call('HSET', GROUPS, cache_key, group) end
end

-- The first member that is alive, if there is one, and the group from there on. A member that had joined is now queued.
local function find_leader(group)
  while group ~= '' do
    local job = read_job(string.match(group, '^%S+'))
    if job.status == 'queued' or job.status == 'started' then return job.id, group end
    if job.status == 'deferred' then
      call('ZREM', DEFERRED .. job.queue, job.id)
      call('HDEL', JOB .. job.id, 'cache')
      to_front(job)
      return job.id, group
    end
    group = string.sub(group, #job.id + 2)
  end
  return nil, ''
end

-- Put a new job into its group. Tells whether a live job leads it.
local function join_group(cache_key, id)
  local leader, group = find_leader(read_group(cache_key))
  write_group(cache_key, leader and group .. ' ' .. id or id)
  return leader ~= nil
end

-- Where an id begins in a group; nil: it is none of its members.
local function find_member(group, id) return string.find(' ' .. group .. ' ', ' ' .. id .. ' ', 1, true) end

-- Take a job that ends without a text out of its group; the next one leads.
local function leave_group(job)
  local group = job.cache_key and read_group(job.cache_key)
  local place = group and find_member(group, job.id)
  if not place then return end
  local before, behind = string.sub(group, 1, place - 1), string.sub(group, place + #job.id + 1)
  local _, others = find_leader(behind == '' and string.sub(before, 1, -2) or before .. behind)
  write_group(job.cache_key, others)
end

-- End a job that has no text for its group.
local function end_without_text(job, state, transition, outcome)
  end_job(job, state, transition, outcome)
  leave_group(job)
end

-- Have a job that has joined led by a live one.
local function keep_led(job)
  if not job.cache_key then return end
  local group = read_group(job.cache_key)
  if not find_member(group, job.id) then group = group == '' and job.id or group .. ' ' .. job.id end
  local _, led = find_leader(group)
  write_group(job.cache_key, led)
end
