-- Give a failed job a new life: queued again, with all its attempts. It does not join, nor ask the cache.
-- KEYS: job hash. ARGV: id, now, bound on waiting jobs.
-- Reply: {'queued'} | {'missing'} | {'refused', status, error_type|''} | {'full', depth, seconds to its turn|''}
local id, now, bound = unpack(ARGV)
local status, queue, error_type = unpack(call('HMGET', KEYS[1], 'status', 'origin', 'error_type'))
if not status then return {'missing'} end
if status ~= 'failed' or error_type == 'expired' then return {'refused', status, error_type or ''} end
local depth = waiting()
if depth >= tonumber(bound) then return refuse(depth, tonumber(bound), tonumber(now)) end
call('ZREM', FAILED .. queue, id)
call('HDEL', KEYS[1], 'error_type', 'error_message', 'expires_at', 'cancel_requested', 'ended_at')
call('HSET', KEYS[1], 'status', 'queued', 'queued_at', now, 'attempts', 0, 'started_at', '', 'worker_name', '')
call('PERSIST', KEYS[1])
call('HINCRBY', TOTALS, 'requeued:retry', 1)
call('RPUSH', QUEUE .. queue, id)
call('PUBLISH', WAKE, queue)
return {'queued'}
