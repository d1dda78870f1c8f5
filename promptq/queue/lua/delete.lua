-- Delete a job that has ended, with its text and its prompt. One that has not is forgotten as a response, and kept for a
-- second after its end.
-- ARGV: time|'' (not used), id.
-- Reply: 'deleted' | 'live' | 'missing'
local _, id = unpack(ARGV)
local ENDED = {finished = FINISHED, failed = FAILED, canceled = CANCELED, stopped = CANCELED}
local job = read_job(id)
if not job.status then return 'missing' end
if not ENDED[job.status] then
  call('HDEL', JOB .. id, 'response')
  call('HSET', JOB .. id, 'result_ttl', 1, 'failure_ttl', 1)
  return 'live'
end
call('ZREM', ENDED[job.status] .. job.queue, id)
call('UNLINK', JOB .. id, RESULTS .. id, PROGRESS .. id)
return 'deleted'
