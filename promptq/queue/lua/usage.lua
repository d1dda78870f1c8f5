-- Put before transition.lua: what the jobs that end in one script have used. It is summed here by owner, model and
-- count, and written once for all, so that a batch does not pay for each of its jobs.
local TOKEN_COUNTS = {'prompt_tokens', 'cached_tokens', 'completion_tokens'}

-- The model of a queue of ours: the default model's queues are named by their priority alone.
local function model_of(queue) return string.match(queue, '^(.+):[^:]*$') or DEFAULT_MODEL end

-- Count an ended job. `outcome` may have tokens ('prompt cached completion'), of a run that the job had to itself, and
-- answered_by ('cache_hits' or 'joins'), where it had none.
local function note_usage(job, state, outcome, usage)
  local owner, model = job.owner or '', model_of(job.queue)
  usage[owner] = usage[owner] or {}
  local function add(count, amount)
    local field = count .. ':' .. model
    usage[owner][field] = (usage[owner][field] or 0) + amount
  end
  add(state, 1)
  if outcome.answered_by then add(outcome.answered_by, 1) end
  local place = 0
  for tokens in string.gmatch(outcome.tokens or '', '%d+') do
    place = place + 1
    if tonumber(tokens) > 0 then add(TOKEN_COUNTS[place], tonumber(tokens)) end
  end
end

-- A key that is no hash costs its counts only: the jobs have ended, hence pcall.
local function write_usage(transition)
  for owner, sums in pairs(transition.usage) do
    local key = USAGE .. string.sub(transition.iso, 1, 10) .. ':' .. owner
    for field, amount in pairs(sums) do redis.pcall('HINCRBY', key, field, amount) end
    redis.pcall('EXPIRE', key, USAGE_DAYS * 86400)
  end
end
