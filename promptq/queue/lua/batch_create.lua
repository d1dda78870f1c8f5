-- Write down a new batch, whose input is in use from then on. Once more with the same id changes nothing: the call's
-- answer was lost, or it came with a key of the client's.
-- ARGV: time|'', id, owner, window in seconds, id of the input file, fields of its hash as name, value, ...
-- Reply: 'created' | 'known' | 'missing' (there is no such file)
local given_time, id, owner, window, input = unpack(ARGV, 1, 5)
if call('EXISTS', BATCH .. id) == 1 then return 'known' end
if call('EXISTS', FILE .. input) == 0 then return 'missing' end
for _, old in ipairs(call('ZRANGE', BATCHES .. owner, 0, 9)) do -- the oldest may have come to their end since
  if call('EXISTS', BATCH .. old) == 0 then call('ZREM', BATCHES .. owner, old) end
end
local now = clock(given_time)
call('HSET', BATCH .. id, 'status', 'validating', 'owner', owner, 'created_at', stamp(now), 'expires_at',
  stamp(now + window), 'input_file_id', input, unpack(ARGV, 6))
call('HINCRBY', FILE .. input, 'uses', 1)
call('ZADD', BATCHES .. owner, stamp(now), id)
call('ZADD', LIVE_BATCHES, stamp(now), id)
return 'created'
