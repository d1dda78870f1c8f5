-- End a waiting job, or ask the worker of a running one to stop.
-- KEYS: job hash. ARGV: id, now, iso, result_ttl.
-- Reply: {'missing'} | {'cancelled'} | {'requested'} | {'terminal', status, error_type|''}
insist()
local id, now, iso, result_ttl = unpack(ARGV)
local status, queue, error_type = unpack(call('HMGET', KEYS[1], 'status', 'origin', 'error_type'))
if not status then return {'missing'} end
if status == 'queued' or status == 'deferred' then
  call('LREM', QUEUE .. queue, 1, id)
  call('ZREM', DEFERRED .. queue, id)
  settle(id, queue, 'cancelled', {now = tonumber(now), iso = iso, result_ttl = result_ttl}, {})
  leave(id)
  return {'cancelled'}
end
if status == 'started' then
  call('HSET', KEYS[1], 'cancel_requested', '1')
  call('PUBLISH', CANCEL, id)
  return {'requested'}
end
return {'terminal', status, error_type or ''}
