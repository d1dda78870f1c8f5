-- Put before submit.lua and retry.lua: the bound on how many jobs may wait.
local KEPT_FREE = 0.1

-- Jobs that wait in these queues, those that joined another one included.
local function count_waiting(queues)
  local depth = 0
  for _, queue in ipairs(queues) do depth = depth + call('LLEN', QUEUE .. queue) + call('ZCARD', DEFERRED .. queue) end
  return depth
end

-- How many jobs of a key wait in these queues.
local function count_backlog(owner, queues, flows)
  local jobs = 0
  for _, queue in ipairs(queues) do
    local flow = flow_of(flows, queue)
    local key = key_of(flow, owner)
    jobs = jobs + math.max(0, math.floor((key.finish - flow.now) / key.cost))
  end
  return jobs
end

-- How many jobs may wait before one of this key is refused. The last tenth of the bound is kept for keys of which less
-- than a tenth waits: so a key that fills the queue keeps no other one out.
local function bound_for(job, bound, depth, queues, flows)
  if not job.cost then return bound end
  local of_one = math.floor(bound * (1 - KEPT_FREE))
  if depth < of_one or count_backlog(job.owner, queues, flows) < bound - of_one then return bound end
  return of_one
end

-- Where a model's turns are kept; beside other keys each has its own.
local function turn_key(model, job) return TURN .. model .. (job.cost and '#' .. job.owner or '') end

-- In a queue that is half empty those that were refused did not come back: their turns are void.
local function void_turns(job, transition)
  local key = turn_key(transition.model, job)
  if not transition.voided[key] then call('DEL', key) end
  transition.voided[key] = true
end

-- Refuse a job, and give it a turn: when there should be room for it, one job's time after the job refused before it.
-- Told the same moment, all that were refused would come back together and find room for one. Without a known drain
-- rate there are no turns. Returns the reply {'full', depth, seconds to its turn|''}.
local function refuse(job, model, depth, bound, now)
  local rate = tonumber(call('GET', DRAIN_RATE .. model) or '') or 0
  if rate <= 0 then return {'full', depth, ''} end
  local key = turn_key(model, job)
  local turn = math.max(tonumber(call('GET', key) or '') or 0, now + (depth - bound) / rate) + 1 / rate
  call('SET', key, stamp(turn), 'EX', 600)
  return {'full', depth, stamp(turn - now)}
end
