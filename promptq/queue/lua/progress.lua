-- Put before claim.lua and retry.lua: what earlier runs of a job generated.

-- A new life: nothing of what came before counts, and whoever reads the text learns so by `resets`.
local function begin_anew(job)
  call('UNLINK', PROGRESS .. job.id)
  call('HINCRBY', JOB .. job.id, 'resets', 1)
  call('HDEL', JOB .. job.id, 'moves', 'preemptions', 'progress_of')
  job.moves, job.preemptions = nil, nil
end

-- Of a job's entries, in order, the token ids and then the logprobs or '', for a worker whose model is the one that
-- made them. For another one, and in a new life (`rq requeue`), the job starts over.
local function take_up(job, identity)
  local kept = {}
  if job.failed_before then
    begin_anew(job)
  elseif job.moves and identity ~= '' and identity == job.progress_of then
    for i, entry in ipairs(redis.pcall('XRANGE', PROGRESS .. job.id, '-', '+')) do
      kept[2 * i - 1], kept[2 * i] = entry[2][2], entry[2][6] or ''
    end
  elseif job.moves and call('UNLINK', PROGRESS .. job.id) == 1 then
    call('HINCRBY', JOB .. job.id, 'resets', 1)
  end
  return kept
end
