-- Put before claim.lua: what earlier runs of a job generated.

-- The token ids of a job's entries, in order, for a worker whose model is the one that made them. For another one, and
-- in a new life (`rq requeue`), the job starts over, and whoever reads its text learns so by `resets`.
local function take_up(job, identity)
  if not job.moves and not job.failed_before then return {} end
  local tokens = {}
  if not job.failed_before and identity ~= '' and identity == job.progress_of then
    for i, entry in ipairs(redis.pcall('XRANGE', PROGRESS .. job.id, '-', '+')) do tokens[i] = entry[2][2] end
  elseif call('UNLINK', PROGRESS .. job.id) == 1 or job.failed_before then
    call('HINCRBY', JOB .. job.id, 'resets', 1)
  end
  if job.failed_before then
    call('HDEL', JOB .. job.id, 'moves', 'progress_of')
    job.moves = nil
  end
  return tokens
end
