-- Put before the scripts in which jobs join or leave. Live jobs with the same cache key are a group: the first one, the
-- leader, is generated, and the others wait for its text. GROUPS has their ids by cache key, with spaces between.
local function read_group(cache_key) return call('HGET', GROUPS, cache_key) or '' end

local function write_group(cache_key, group)
  if group == '' then call('HDEL', GROUPS, cache_key) else call('HSET', GROUPS, cache_key, group) end
end

local function leader_of(group) return string.match(group, '^%S+') end

-- Have a job that had joined generated itself.
local function promote(job)
  call('ZREM', DEFERRED .. job.queue, job.id)
  call('HDEL', JOB .. job.id, 'cache')
  to_front(job)
end

-- The group without those at its front that live no more; whoever is first then is made its leader. Returns what is
-- left: an empty string if nobody lives.
local function ensure_leader(group)
  while group ~= '' do
    local job = read_job(leader_of(group))
    if job.status == 'deferred' then promote(job) end
    if job.status == 'queued' or job.status == 'started' or job.status == 'deferred' then return group end
    group = string.sub(group, #job.id + 2)
  end
  return ''
end

-- Put a new job into its group. Tells whether a live job leads it.
local function join_group(cache_key, id)
  local group = ensure_leader(read_group(cache_key))
  write_group(cache_key, group == '' and id or group .. ' ' .. id)
  return group ~= ''
end

-- Where an id begins in a group; nil: it is none of its members.
local function find_member(group, id) return string.find(' ' .. group .. ' ', ' ' .. id .. ' ', 1, true) end

-- Take a job that ends without a text out of its group; the next one leads.
local function leave_group(job)
  local group = job.cache_key and read_group(job.cache_key)
  local place = group and find_member(group, job.id)
  if not place then return end
  local before, behind = string.sub(group, 1, place - 1), string.sub(group, place + #job.id + 1)
  write_group(job.cache_key, ensure_leader(behind == '' and string.sub(before, 1, -2) or before .. behind))
end

-- End a job that has no text for its group.
local function end_without_text(job, state, transition, outcome)
  end_job(job, state, transition, outcome)
  leave_group(job)
end
