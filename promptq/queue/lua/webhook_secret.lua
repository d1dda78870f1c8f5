-- Give the webhooks of an API key's jobs their next secret; for a while what is sent is signed with the last one too.
-- ARGV: time|'', owner, the version that it has.
-- Reply: 1 | 0 (it was rotated meanwhile)
local given_time, owner, version = unpack(ARGV)
if (call('HGET', WEBHOOK_SECRET .. owner, 'version') or '1') ~= version then return 0 end
call('HSET', WEBHOOK_SECRET .. owner, 'version', version + 1, 'rotated_at', stamp(clock(given_time)))
return 1
