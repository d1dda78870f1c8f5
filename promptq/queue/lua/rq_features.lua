-- Put before claim.lua: what plain RQ may have written on a job.
local UNSUPPORTED = {'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks',
  'rate_limit_key', 'repeats_left', 'retries_left'}

-- Names of RQ's features on a job that we do not run, with commas between.
local function unsupported(id)
  local names, values = {}, redis.pcall('HMGET', JOB .. id, unpack(UNSUPPORTED))
  for i, name in ipairs(UNSUPPORTED) do
    local value = values[i]
    if value and value ~= '' and value ~= '0' then names[#names + 1] = name end
  end
  return table.concat(names, ', ')
end
