-- Write down a file whose bytes the storage has. Once more changes nothing.
-- ARGV: time|'', id, owner, seconds to keep it|'', fields of its hash as name, value, ...
-- Reply: created_at
local given_time, id, owner, keep = unpack(ARGV, 1, 4)
local known = call('HGET', FILE .. id, 'created_at')
if known then return known end
local now = clock(given_time)
call('HSET', FILE .. id, 'created_at', stamp(now), unpack(ARGV, 5))
call('ZADD', FILES .. owner, stamp(now), id)
if keep ~= '' then
  call('HSET', FILE .. id, 'expires_at', stamp(now + keep))
  call('ZADD', FILE_EXPIRY, stamp(now + keep), id)
else
  call('ZREM', FILE_EXPIRY, id) -- where it was from the beginning of its upload on
end
return stamp(now)
