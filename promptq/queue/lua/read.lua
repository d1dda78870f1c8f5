-- Read jobs. Changes nothing. A key that is no hash is no job, and must not keep others from being read, hence pcall.
-- ARGV: time|'' (not used), how far to look for a place in the queue, how many fields to read, their names, then ids.
-- Reply: per job {values of the fields; return_value of an ended job | false; jobs ahead of a queued one | false}
local _, horizon, field_count = unpack(ARGV, 1, 3)
local fields, reply = {unpack(ARGV, 4, 3 + field_count)}, {}
local LIVE = {queued = true, started = true, deferred = true, scheduled = true}

local function last_text(id) return return_value(redis.pcall('XREVRANGE', RESULTS .. id, '+', '-', 'COUNT', 1)[1]) end

for i = 4 + field_count, #ARGV do
  local id = ARGV[i]
  local status, queue = unpack(redis.pcall('HMGET', JOB .. id, 'status', 'origin'))
  local text = status and not LIVE[status] and last_text(id) or false
  local ahead = status == 'queued' and queue and call('LPOS', QUEUE .. queue, id, 'MAXLEN', horizon)
  reply[#reply + 1] = {status and call('HMGET', JOB .. id, unpack(fields)) or {false}, text, ahead}
end
return reply
