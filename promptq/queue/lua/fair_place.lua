-- Put before submit.lua and retry.lua, behind fair.lua: a job's place in its queue.
local NEAR_END, POSITION_HORIZON = 128, 10000

-- Forget the tags of jobs that were claimed before the last one.
local function forget_claimed(flow)
  if flow.is_idle then return call('UNLINK', START_TAGS .. flow.queue, FINISH_TAGS .. flow.queue) end
  call('ZREMRANGEBYSCORE', START_TAGS .. flow.queue, '-inf', '(' .. flow.reached)
end

-- Give a key's new job its tag. Returns the score.
local function take_start_tag(job, flow)
  if not flow.is_tidy then forget_claimed(flow) end
  flow.is_tidy = true
  local start = math.max(flow.now, key_of(flow, job.owner).finish)
  flow.keys[job.owner] = {finish = start + job.cost, cost = job.cost}
  call('HSET', FINISH_TAGS .. job.queue, job.owner, string.format('%.0f %.0f', start + job.cost, job.cost))
  local tied = call('ZREVRANGEBYSCORE', START_TAGS .. job.queue, start * TIES + TIES - 1, start * TIES, 'WITHSCORES',
    'LIMIT', 0, 1)
  local score = string.format('%.0f', tied[2] and tied[2] + 1 or start * TIES)
  call('ZADD', START_TAGS .. job.queue, score, job.id)
  return score
end

-- The first waiting job with a greater score. Those that RQ's tools have ended are forgotten on the way.
local function find_follower(queue, score)
  while true do
    local id = call('ZRANGEBYSCORE', START_TAGS .. queue, '(' .. score, '+inf', 'LIMIT', 0, 1)[1]
    if not id or call('HGET', JOB .. id, 'status') == 'queued' then return id end
    call('ZREM', START_TAGS .. queue, id)
  end
end

-- Put an id before another one. Returns its place, false where that is beyond the horizon, or nil: the other one is not
-- in the list. Redis inserts by looking from the head on alone: near the end it is cheaper to take off what is behind.
local function insert_before(list, follower, id)
  local place = call('LPOS', list, follower, 'RANK', -1, 'MAXLEN', NEAR_END)
  if place then
    local behind, ids = call('RPOP', list, call('LLEN', list) - place), {id}
    for i = #behind, 1, -1 do ids[#ids + 1] = behind[i] end
    call('RPUSH', list, unpack(ids))
    return place
  end
  if call('LINSERT', list, 'BEFORE', follower, id) == -1 then return nil end
  return call('LPOS', list, id, 'MAXLEN', POSITION_HORIZON)
end

-- Put a job into its queue. Returns how many are ahead of it, or false: more than are counted.
local function line_up(job, flows)
  local list = QUEUE .. job.queue
  if not job.cost then return call('RPUSH', list, job.id) - 1 end
  local score = take_start_tag(job, flow_of(flows, job.queue))
  local follower = find_follower(job.queue, score)
  while follower do
    local place = insert_before(list, follower, job.id)
    if place ~= nil then return place end
    call('ZREM', START_TAGS .. job.queue, follower)
    follower = find_follower(job.queue, score)
  end
  return call('RPUSH', list, job.id) - 1
end
