-- End a waiting job, or ask the worker of a running one to stop.
-- ARGV: time|'', id, result_ttl, token of this call: repeated because its answer was lost, it says the same again.
-- Reply: {'missing'} | {'cancelled'} | {'requested'} | {'terminal', status, error_type|''}
local given_time, id, result_ttl, token = unpack(ARGV)
write_on_a_full_server()
local job = read_job(id)
if not job.status or is_foreign(job) then return {'missing'} end
if job.ended_by == token then return {'cancelled'} end
if is_waiting(job) then
  local transition = new_transition(given_time, result_ttl)
  withdraw(job)
  end_without_text(job, 'cancelled', transition, {by = token})
  conclude(transition)
  return {'cancelled'}
end
if job.status == 'started' then
  call('HSET', JOB .. id, 'cancel_requested', '1')
  announce(CANCEL, id)
  return {'requested'}
end
return {'terminal', job.status, job.error_type or ''}
