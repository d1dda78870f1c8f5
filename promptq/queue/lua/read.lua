-- Read jobs. Changes nothing. common.lua is not put before it: a poll has no use for that.
-- ARGV: how far to look for a place in the queue, how many fields to read, their names, then ids.
-- Reply: per job {values of the fields; return_value of an ended job | false; jobs ahead of a queued one | false}
local call, first, reply = redis.call, 3 + ARGV[2], {}
for i = first, #ARGV do
  local id, value = ARGV[i], false
  local status, queue = unpack(call('HMGET', JOB .. id, 'status', 'origin'))
  local waits = status == 'queued' or status == 'started' or status == 'deferred'
  local last = status and not waits and call('XREVRANGE', RESULTS .. id, '+', '-', 'COUNT', 1)[1]
  for j = 1, last and #last[2] or 0, 2 do value = last[2][j] == 'return_value' and last[2][j + 1] or value end
  local ahead = status == 'queued' and queue and call('LPOS', QUEUE .. queue, id, 'MAXLEN', ARGV[1])
  reply[#reply + 1] = {call('HMGET', JOB .. id, unpack(ARGV, 3, first - 1)), value, ahead}
end
return reply
