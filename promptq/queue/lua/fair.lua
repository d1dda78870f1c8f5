-- Put before submit.lua and retry.lua: start-time fair queueing (Goyal, Vin, Cheng 1996) over API keys within a queue.
-- A waiting job of a key has a start tag, and the queue's list is in the order of these tags, so whoever reads or pops
-- it, RQ's tools too, sees the order of service. A key's jobs are its `cost` apart; jobs without a cost have no tag and
-- wait where they were put. START_TAGS has tags by job, those of claimed ones until the next submit; a score is the tag
-- times TIES, and one more for each job that had the same tag before.
-- Nothing here writes: a script that is going to refuse a job must not have written before.
local HEADS_AT_MOST, STEPS_AT_MOST, TIES = 1000, 10000, 1024

-- The score of the first job that has one; nil: no such job waits.
local function head_score(queue)
  for place = 0, HEADS_AT_MOST - 1 do
    local id = call('LINDEX', QUEUE .. queue, place)
    if not id then return nil end
    local score = call('ZSCORE', START_TAGS .. queue, id)
    if score then return score end
  end
end

-- A queue's virtual time, which is the tag of the job claimed last (or of the head, if none was), and what is known of
-- its keys. Of a queue that is empty, or has lost its tags, nothing is remembered.
local function new_flow(queue)
  if call('EXISTS', QUEUE .. queue) + call('EXISTS', START_TAGS .. queue) < 2 then
    return {queue = queue, is_idle = true, now = 0, keys = {}}
  end
  local head = head_score(queue)
  local claimed = call('ZREVRANGEBYSCORE', START_TAGS .. queue, head and '(' .. head or '+inf', '-inf', 'WITHSCORES',
    'LIMIT', 0, 1)
  local reached = claimed[2] or head or '0'
  return {queue = queue, reached = reached, now = math.floor(reached / TIES), keys = {}}
end

-- The flows of one script, each read once.
local function flow_of(flows, queue)
  flows[queue] = flows[queue] or new_flow(queue)
  return flows[queue]
end

-- Whether one of the key's jobs has this tag.
local function has_job_at(queue, owner, tag)
  for _, id in ipairs(call('ZRANGEBYSCORE', START_TAGS .. queue, tag * TIES, tag * TIES + TIES - 1)) do
    if call('HGET', JOB .. id, 'owner') == owner then return true end
  end
end

-- Of a key, where its next job may begin (finish), and what its last one cost: behind the last one that waits or was
-- claimed. Those that were cancelled or expired behind that one are not charged.
local function key_of(flow, owner)
  if flow.keys[owner] then return flow.keys[owner] end
  local known = not flow.is_idle and call('HGET', FINISH_TAGS .. flow.queue, owner) or '0 1'
  local finish, cost = string.match(known, '^(%d+) (%d+)$')
  local key = {finish = tonumber(finish), cost = tonumber(cost)}
  for _ = 1, STEPS_AT_MOST do
    local before = key.finish - key.cost
    if before <= flow.now or has_job_at(flow.queue, owner, before) then break end
    key.finish = before
  end
  flow.keys[owner] = key
  return key
end
