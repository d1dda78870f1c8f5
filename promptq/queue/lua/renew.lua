-- Extend the leases of one worker, and tell which claims it lost or should stop.
-- ARGV: wip score, then per claim: queue, id, execution.
-- Reply: per claim 'ok' | 'lost' | 'cancel'
insist()
local reply = {}
for i = 2, #ARGV, 3 do
  local queue, id, member = ARGV[i], ARGV[i + 1], ARGV[i + 1] .. ':' .. ARGV[i + 2]
  local status, cancel = unpack(call('HMGET', JOB .. id, 'status', 'cancel_requested'))
  if status ~= 'started' or not call('ZSCORE', WIP .. queue, member) then
    reply[#reply + 1] = 'lost'
  else
    call('ZADD', WIP .. queue, 'XX', ARGV[1], member)
    reply[#reply + 1] = cancel and 'cancel' or 'ok'
  end
end
return reply
