-- Extend the leases of one worker, and tell which claims it lost or should stop.
-- ARGV: time|'', lease seconds, then per claim: queue, id, execution.
-- Reply: per claim 'ok' | 'lost' | 'cancel'
local given_time, lease_seconds = unpack(ARGV, 1, 2)
write_on_a_full_server()
local lease_end = stamp(clock(given_time) + lease_seconds + LEASE_GRACE)
local reply = {}
for i = 3, #ARGV, 3 do
  local queue, id, execution = unpack(ARGV, i, i + 2)
  local member = id .. ':' .. execution
  local status, cancel = unpack(call('HMGET', JOB .. id, 'status', 'cancel_requested'))
  if status ~= 'started' or not call('ZSCORE', WIP .. queue, member) then
    reply[#reply + 1] = 'lost'
  else
    call('ZADD', WIP .. queue, 'XX', lease_end, member)
    reply[#reply + 1] = cancel and 'cancel' or 'ok'
  end
end
return reply
