-- Put before transition.lua: how long an ended job is kept.

-- How many seconds an ended job is kept: its own time, or that of all. Less than none is for ever, as with RQ; with
-- much longer ones Redis refuses the command. A failed job is kept for as long as a client's key or id was promised to
-- be known, which is its result_ttl.
local function lifetime(job, kind, transition)
  local own, as_result = tonumber(job[kind] or ''), tonumber(job.result_ttl or '') or 0
  if own then return own < 0 and math.huge or math.min(own, 1e10) end
  return kind == 'failure_ttl' and math.max(transition[kind], as_result) or transition[kind]
end

local function keep(key, seconds)
  if seconds == math.huge then call('PERSIST', key) else call('PEXPIRE', key, string.format('%.0f', 1000 * seconds)) end
end
