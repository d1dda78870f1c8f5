-- Give a webhook endpoint its next secret; for a while what is sent is signed with the last one too.
-- ARGV: time|'', id, the version that it has, fingerprint of the next secret.
-- Reply: 1 | 0 (there is none, or it was rotated meanwhile)
local given_time, id, version, fingerprint = unpack(ARGV)
if call('HGET', WEBHOOK .. id, 'version') ~= version then return 0 end
call('HSET', WEBHOOK .. id, 'version', version + 1, 'fingerprint', fingerprint,
  'rotated_at', stamp(clock(given_time)))
return 1
