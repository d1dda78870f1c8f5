-- Admit jobs for one model, in turn: recognise a repeat, answer from the cache, join a live twin, or queue the job.
-- ARGV: time|'', bound on waiting jobs, result_ttl, cache_ttl, model, how many queues the model has, their names, then
--       per job: id, queue, ttl_seconds|'', request's key|'', idempotency record|'', the lifetime of record and job|'',
--       fingerprint|'', cost beside other keys' jobs|'', data, how many values follow, other fields of its hash as
--       name, value, ...
-- Reply: {time, rows}, per job a row {'new', jobs ahead|false} | {'join'} | {'hit', return_value}
--        | {'full', depth, seconds to its turn|''} | {'conflict', id} | {'repeat', id}
local given_time, bound, result_ttl, cache_ttl, model, queue_count = unpack(ARGV, 1, 6)
local queues = {unpack(ARGV, 7, 6 + queue_count)}
local identity = call('HGET', MODEL .. model, 'identity')
local transition = new_transition(given_time, result_ttl)
transition.model, transition.bound, transition.cache_ttl = model, tonumber(bound), tonumber(cache_ttl)
transition.depth, transition.admitted, transition.fed = count_waiting(queues), 0, {}
transition.queues, transition.flows, transition.voided = queues, {}, {}

-- Of the fields of a job's hash, whose it is; nil: nobody's.
local function owner_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'owner' then return fields[i + 1] end
  end
end

local rows, next_job = {}, 7 + queue_count
while next_job <= #ARGV do
  local id, queue, ttl, request_key, record, keep, fingerprint, cost, data, count = unpack(ARGV, next_job, next_job + 9)
  local job = {id = id, queue = queue, ttl = ttl, cache_key = cache_key_for(request_key, identity), record = record,
    keep = keep, fingerprint = fingerprint, cost = tonumber(cost), data = data,
    fields = {unpack(ARGV, next_job + 10, next_job + 9 + count)}}
  job.owner = owner_of(job.fields)
  if job.cache_key ~= '' then table.insert(job.fields, 'cache_key'); table.insert(job.fields, job.cache_key) end
  rows[#rows + 1] = admit(job, transition)
  next_job = next_job + 10 + count
end
if transition.admitted > 0 then count(transition, model, 'submitted', transition.admitted) end
for queue, jobs in pairs(transition.fed) do wake_for(queues, queue, jobs) end
conclude(transition)
return {stamp(transition.now), rows}
