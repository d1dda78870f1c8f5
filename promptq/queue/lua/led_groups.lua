-- Put before reap.lua and reconcile.lua: that whoever has joined is led by a live job, also where RQ's tools have taken
-- the leader away, or the server has lost the group. What is right already is not written: groups may be long.

-- Groups by cache key, each read once, with the jobs that have joined and are in none; `found` is what Redis has.
local function new_groups() return {as_they_are = {}, found = {}} end

local function add_group(groups, cache_key, group)
  groups.as_they_are[cache_key], groups.found[cache_key] = group, group
end

local function add_joined(groups, job)
  if not groups.found[job.cache_key] then add_group(groups, job.cache_key, read_group(job.cache_key)) end
  local group = groups.as_they_are[job.cache_key]
  if find_member(group, job.id) then return end
  groups.as_they_are[job.cache_key] = group == '' and job.id or group .. ' ' .. job.id
end

-- By chance, so that in time each is looked at, however many there are.
local function add_some_that_joined(groups, queue, most)
  for _, id in ipairs(call('ZRANDMEMBER', DEFERRED .. queue, most) or {}) do
    local job = read_job(id)
    if not job.status then call('ZREM', DEFERRED .. queue, id) end
    if job.status == 'deferred' and job.cache_key then add_joined(groups, job) end
  end
end

local function add_some_groups(groups, most)
  for _, cache_key in ipairs(call('HRANDFIELD', GROUPS, most) or {}) do
    if not groups.found[cache_key] then add_group(groups, cache_key, read_group(cache_key)) end
  end
end

local function keep_led(groups)
  for cache_key, group in pairs(groups.as_they_are) do
    local led = ensure_leader(group)
    if led ~= groups.found[cache_key] then write_group(cache_key, led) end
  end
end
