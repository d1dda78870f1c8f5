-- Forget a file, whose bytes are deleted next.
-- ARGV: time|'' (not used), id, owner.
-- Reply: 1 | 0 (there was none) | -1 (a batch that has not ended reads or writes it)
local _, id, owner = unpack(ARGV)
local uses, batch = unpack(call('HMGET', FILE .. id, 'uses', 'batch_id'))
if batch or tonumber(uses or 0) > 0 then return -1 end
call('ZREM', FILES .. owner, id)
call('ZREM', FILE_EXPIRY, id)
return call('DEL', FILE .. id)
