-- Note the deliveries of one event, and take it from the outbox: both, or neither. Once more does nothing.
-- ARGV: time|'', entry of the outbox|'' (the event comes from elsewhere), per delivery: endpoint, id, delivery as JSON.
-- Reply: how many were noted
local given_time, entry = unpack(ARGV, 1, 2)
local FIRST, VALUES = 3, 3
local now, noted = stamp(clock(given_time)), 0
for i = FIRST, #ARGV, VALUES do
  local endpoint, id, delivery = unpack(ARGV, i, i + VALUES - 1)
  -- An endpoint that is gone gets none. One that has it: an earlier call was repeated because its answer was lost.
  if call('EXISTS', WEBHOOK .. endpoint) == 1 and call('HSETNX', DELIVERIES .. endpoint, id, delivery) == 1 then
    call('ZADD', DELIVERY_ORDER .. endpoint, now, id)
    call('ZADD', DELIVERIES_DUE .. endpoint, now, id)
    call('SADD', WEBHOOKS_ACTIVE, endpoint)
    noted = noted + 1
  end
end
if entry ~= '' then call('XDEL', OUTBOX, entry) end
return noted
