-- Read jobs. Changes nothing.
-- ARGV: how far to look for a place in the queue, how many fields to read, their names, then ids.
-- Reply: per job {values of the fields; return_value of an ended job | false; jobs ahead of a queued one | false}
local horizon, field_count = unpack(ARGV, 1, 2)
local fields, reply = {unpack(ARGV, 3, 2 + field_count)}, {}

for i = 3 + field_count, #ARGV do
  local id = ARGV[i]
  local status, queue = unpack(call('HMGET', JOB .. id, 'status', 'origin'))
  local waits_or_runs = status == 'queued' or status == 'started' or status == 'deferred'
  local has_ended = status and not waits_or_runs
  local text = has_ended and return_value(call('XREVRANGE', RESULTS .. id, '+', '-', 'COUNT', 1)[1]) or false
  local ahead = status == 'queued' and queue and call('LPOS', QUEUE .. queue, id, 'MAXLEN', horizon)
  reply[#reply + 1] = {call('HMGET', JOB .. id, unpack(fields)), text, ahead}
end
return reply
