-- Admit jobs for one model, in turn: recognise a repeat, answer from the cache, join a live twin, or queue the job.
-- ARGV: time|'', bound on waiting jobs, bound on the outbox, result_ttl, cache_ttl, model, how many queues the model has, their names, then
--       per job: id, queue, ttl_seconds|'', request's key|'', idempotency record|'', the lifetime of record and job|'',
--       fingerprint|'', cost beside other keys' jobs|'', data, how many values follow, other fields of its hash as
--       name, value, ...
-- Reply: {time, rows}, per job a row {'new', jobs ahead|false} | {'join'} | {'hit', return_value}
--        | {'full', depth, seconds to its turn|''} | {'behind'} | {'conflict', id} | {'repeat', id}
local given_time, bound, outbox_bound, result_ttl, cache_ttl, model, queue_count = unpack(ARGV, 1, 7)
local queues = {unpack(ARGV, 8, 7 + queue_count)}
local identity = call('HGET', MODEL .. model, 'identity')
local transition = new_transition(given_time, result_ttl)
transition.model, transition.bound, transition.cache_ttl = model, tonumber(bound), tonumber(cache_ttl)
transition.depth, transition.admitted, transition.fed = count_waiting(queues), 0, {}
transition.queues, transition.flows, transition.voided = queues, {}, {}
transition.is_behind, transition.told = is_behind(outbox_bound), {}

-- Of the fields of a job's hash, the one of this name; nil: it has none.
local function field_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

local rows, next_job = {}, 8 + queue_count
while next_job <= #ARGV do
  local id, queue, ttl, request_key, record, keep, fingerprint, cost, data, count = unpack(ARGV, next_job, next_job + 9)
  local job = {id = id, queue = queue, ttl = ttl, cache_key = cache_key_for(request_key, identity), record = record,
    keep = keep, fingerprint = fingerprint, cost = tonumber(cost), data = data,
    fields = {unpack(ARGV, next_job + 10, next_job + 9 + count)}}
  job.owner, job.webhook = field_of(job.fields, 'owner'), field_of(job.fields, 'webhook')
  if job.cache_key ~= '' then table.insert(job.fields, 'cache_key'); table.insert(job.fields, job.cache_key) end
  rows[#rows + 1] = admit(job, transition)
  next_job = next_job + 10 + count
end
if transition.admitted > 0 then count(transition, model, 'submitted', transition.admitted) end
for queue, jobs in pairs(transition.fed) do wake_for(queues, queue, jobs) end
conclude(transition)
return {stamp(transition.now), rows}
