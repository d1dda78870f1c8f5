-- Read one job in one go. Changes nothing.
-- KEYS: job hash, results stream. ARGV: id, how far to look for its place in the queue.
-- Reply: {fields of the hash as name, value, ...; fields of the last result likewise; jobs ahead of it | false}
local fields = call('HGETALL', KEYS[1])
local status, queue = unpack(call('HMGET', KEYS[1], 'status', 'origin'))
local last = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local position = status == 'queued' and queue and call('LPOS', QUEUE .. queue, ARGV[1], 'MAXLEN', ARGV[2])
return {fields, last[1] and last[1][2] or {}, position}
