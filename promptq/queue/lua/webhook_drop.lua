-- Forget a webhook endpoint, and all that was to be sent to it.
-- ARGV: time|'' (not used), id, owner.
-- Reply: 1 | 0 (there was none)
local _, id, owner = unpack(ARGV)
call('ZREM', WEBHOOKS .. owner, id)
call('ZREM', WEBHOOK_HOSTS .. owner, id)
if call('EXISTS', WEBHOOKS .. owner) == 0 then call('SREM', WEBHOOK_OWNERS, owner) end
call('SREM', WEBHOOKS_ACTIVE, id)
call('UNLINK', DELIVERIES .. id, DELIVERY_ORDER .. id, DELIVERIES_DUE .. id, DELIVERIES_ENDED .. id)
return call('DEL', WEBHOOK .. id)
