-- End running jobs. Only the worker that still holds the claim may: the ZREM of its execution is the fence.
-- A success fills the cache and gives its text to every job that joined it; any other end lets the next one lead.
-- ARGV: now, iso, result_ttl, failure_ttl, cache_ttl, worker key, worker name,
--       then per job: queue, id, execution, state, return_value|'', error_type|'', error_message|'', exc_string|''
-- Reply: per job 1 if this call ended it, else 0.
insist()
local at = {now = tonumber(ARGV[1]), iso = ARGV[2], result_ttl = ARGV[3], failure_ttl = ARGV[4]}
local reply, counts = {}, {successful_job_count = 0, failed_job_count = 0}

local function share(id, text)
  local cache_key = call('HGET', JOB .. id, 'cache_key')
  if not cache_key then return end
  if tonumber(ARGV[5]) > 0 then call('SET', CACHE .. cache_key, text, 'EX', ARGV[5]) end
  if call('LINDEX', JOIN .. cache_key, 0) ~= id then return end
  for _, joined in ipairs(call('LRANGE', JOIN .. cache_key, 1, -1)) do
    local status, queue = unpack(call('HMGET', JOB .. joined, 'status', 'origin'))
    if status == 'deferred' then
      call('ZREM', DEFERRED .. queue, joined)
      settle(joined, queue, 'succeeded', at, {worker = ARGV[7], return_value = text})
    end
  end
  call('DEL', JOIN .. cache_key)
end

for i = 8, #ARGV, 8 do
  local queue, id, execution, state, text, error_type, error_message, exc_string = unpack(ARGV, i, i + 7)
  local held = call('ZREM', WIP .. queue, id .. ':' .. execution) == 1
  local ends = held and call('HGET', JOB .. id, 'status') == 'started'
  if ends then
    settle(id, queue, state, at, {worker = ARGV[7], return_value = text, error_type = error_type,
      error_message = error_message, exc_string = exc_string})
    local count = state == 'failed' and 'failed_job_count' or 'successful_job_count'
    counts[count] = counts[count] + 1
  end
  if ends and state == 'succeeded' then share(id, text) elseif held then leave(id) end
  reply[#reply + 1] = ends and 1 or 0
end
if call('EXISTS', ARGV[6]) == 1 then
  for field, count in pairs(counts) do call('HINCRBY', ARGV[6], field, count) end
end
return reply
