-- Put before submit.lua and retry.lua: the bound on how many jobs may wait.

-- Jobs that wait in these queues, those that joined another one included.
local function count_waiting(queues)
  local depth = 0
  for _, queue in ipairs(queues) do depth = depth + call('LLEN', QUEUE .. queue) + call('ZCARD', DEFERRED .. queue) end
  return depth
end

-- Refuse a job for a model, and give it a turn: when there should be room for it, one job's time after the job refused
-- before it.
-- Told the same moment, all that were refused would come back together and find room for one. Without a known drain
-- rate there are no turns. Returns the reply {'full', depth, seconds to its turn|''}.
local function refuse(model, depth, bound, now)
  local rate = tonumber(call('GET', DRAIN_RATE .. model) or '') or 0
  if rate <= 0 then return {'full', depth, ''} end
  local turn = math.max(tonumber(call('GET', TURN .. model) or '') or 0, now + (depth - bound) / rate) + 1 / rate
  call('SET', TURN .. model, stamp(turn), 'EX', 600)
  return {'full', depth, stamp(turn - now)}
end
