-- Put before transition.lua: exact counts, of all jobs and of each model's. They are summed here, and written once for
-- all, so that a batch does not pay for each of its jobs.

-- Count for a model, and so for all.
local function count(transition, model, name, amount)
  local totals = transition.totals[model] or {}
  totals[name] = (totals[name] or 0) + amount
  transition.totals[model] = totals
end

-- A key that is no hash costs its counts only: the jobs have ended, hence pcall.
local function write_totals(transition)
  for model, totals in pairs(transition.totals) do
    for name, amount in pairs(totals) do
      call('HINCRBY', TOTALS, name, amount)
      redis.pcall('HINCRBY', MODEL_TOTALS .. model, name, amount)
    end
  end
end
