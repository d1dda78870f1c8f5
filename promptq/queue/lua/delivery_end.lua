-- Write down what came of one try of a delivery.
-- ARGV: time|'', endpoint, id, delivery as JSON, when it is tried again|'' (it has ended), why the endpoint is disabled
--       from now on|'', how many ended deliveries an endpoint keeps, 1 if it was given up because too many wait|'',
--       of a host that a job named: seconds that it is kept when nothing waits, and its owner; else '' ''.
-- Reply: 1 | 0 (it waits no more: the endpoint was deleted, or another has ended it)
local given_time, endpoint, id, delivery, next_at, disabled, kept, dropped, idle_seconds, owner = unpack(ARGV)
local due, ended = DELIVERIES_DUE .. endpoint, DELIVERIES_ENDED .. endpoint
if not call('ZSCORE', due, id) then return 0 end
local now = stamp(clock(given_time))
call('HSET', DELIVERIES .. endpoint, id, delivery)
if next_at ~= '' then
  call('ZADD', due, next_at, id)
else
  call('ZREM', due, id)
  call('ZADD', ended, now, id)
end
local surplus = call('ZCARD', ended) - kept
if surplus > 0 then
  for _, old in ipairs(call('ZRANGE', ended, 0, surplus - 1)) do
    call('ZREM', ended, old)
    call('ZREM', DELIVERY_ORDER .. endpoint, old)
    call('HDEL', DELIVERIES .. endpoint, old)
  end
end
if disabled ~= '' then call('HSET', WEBHOOK .. endpoint, 'disabled', disabled, 'disabled_at', now) end
if dropped ~= '' then call('HINCRBY', WEBHOOK .. endpoint, 'dropped', 1) end
if disabled ~= '' or call('EXISTS', due) == 0 then call('SREM', WEBHOOKS_ACTIVE, endpoint) end
if idle_seconds ~= '' and call('EXISTS', due) == 0 then
  call('ZADD', WEBHOOK_HOSTS .. owner, now, endpoint)
  for _, key in ipairs({WEBHOOK, DELIVERIES, DELIVERY_ORDER, DELIVERIES_ENDED}) do
    call('EXPIRE', key .. endpoint, idle_seconds)
  end
end
return 1
