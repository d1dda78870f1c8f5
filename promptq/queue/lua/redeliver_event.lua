-- Send a delivery once more, from the first try on, and let its endpoint have events again if it was disabled.
-- ARGV: time|'', endpoint, id|'' (only the endpoint is enabled), delivery as JSON, of a host that a job named: 1,
--       and its owner, else '' ''.
-- Reply: 1 | 0 (there is no such delivery any more)
local given_time, endpoint, id, delivery, is_host, owner = unpack(ARGV)
if call('EXISTS', WEBHOOK .. endpoint) == 0 then return 0 end
if id ~= '' then
  if call('HEXISTS', DELIVERIES .. endpoint, id) == 0 then return 0 end
  call('HSET', DELIVERIES .. endpoint, id, delivery)
  call('ZREM', DELIVERIES_ENDED .. endpoint, id)
  call('ZADD', DELIVERIES_DUE .. endpoint, stamp(clock(given_time)), id)
end
call('HDEL', WEBHOOK .. endpoint, 'disabled', 'disabled_at')
if is_host ~= '' then
  call('ZADD', WEBHOOK_HOSTS .. owner, 'inf', endpoint)
  for _, key in ipairs({WEBHOOK, DELIVERIES, DELIVERY_ORDER, DELIVERIES_ENDED}) do call('PERSIST', key .. endpoint) end
end
if call('EXISTS', DELIVERIES_DUE .. endpoint) == 1 then call('SADD', WEBHOOKS_ACTIVE, endpoint) end
return 1
