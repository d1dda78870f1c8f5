-- End a waiting job, or ask the worker of a running one to stop.
-- KEYS: job hash. ARGV: id, now, iso, result_ttl.
-- Reply: {'missing'} | {'cancelled'} | {'requested'} | {'terminal', status, error_type|''}
insist()
local id, now, iso, result_ttl = unpack(ARGV)
local job, at = read(id), moment(now, iso, result_ttl)
if not job.status then return {'missing'} end
if job.status == 'queued' or job.status == 'deferred' then
  call('LREM', QUEUE .. job.queue, 1, id)
  call('ZREM', DEFERRED .. job.queue, id)
  settle(job, 'cancelled', at, {})
  leave(job)
  conclude(at)
  return {'cancelled'}
end
if job.status == 'started' then
  call('HSET', KEYS[1], 'cancel_requested', '1')
  call('PUBLISH', CANCEL, id)
  return {'requested'}
end
return {'terminal', job.status, job.error_type or ''}
