-- Write down a webhook endpoint of an API key.
-- ARGV: time|'', id, owner, the most that one owner may have, fields of its hash as name, value, ...
-- Reply: 'done' | 'full'
local given_time, id, owner, most = unpack(ARGV, 1, 4)
if call('ZCARD', WEBHOOKS .. owner) >= tonumber(most) then return 'full' end
local now = stamp(clock(given_time))
call('HSET', WEBHOOK .. id, 'owner', owner, 'created_at', now, unpack(ARGV, 5))
call('ZADD', WEBHOOKS .. owner, now, id)
call('SADD', WEBHOOK_OWNERS, owner)
return 'done'
