-- Put before transition.lua, retry.lua and batch_move.lua: events for the API keys that have webhook endpoints, and for
-- the jobs that have a webhook of their own. The script that ends a job or a batch writes them itself, so there is no
-- end without its event. The dispatcher takes them from there.

-- Whether somebody asked to be told of what has this owner. `owners` are those of whom is known whether they did.
local function is_told(owner, owners)
  if owners[owner] == nil then owners[owner] = call('SISMEMBER', WEBHOOK_OWNERS, owner) == 1 end
  return owners[owner]
end

-- Whether the end of a job is an event. A line of a batch has none: the batch has.
local function is_event(job, owners)
  if job.webhook then return true end
  return not string.find(job.id, '^batch_%x+%-%d+%-%d+%-%d+$') and is_told(job.owner or '', owners)
end

-- Whether so many events wait that a job whose end would be one more is refused. An outbox that is no stream has none.
local function is_behind(bound)
  local waiting = redis.pcall('XLEN', OUTBOX)
  return type(waiting) == 'number' and waiting >= tonumber(bound)
end

-- Write one event. An outbox that is no stream costs the event: what it tells of has ended, hence pcall.
local function write_event(kind, id, state, owner, webhook)
  local own = webhook and {'webhook', webhook} or {}
  redis.pcall('XADD', OUTBOX, '*', 'kind', kind, 'id', id, 'state', state, 'owner', owner, unpack(own))
end

-- Write the events of the jobs that ended in one script.
local function write_events(jobs)
  if not jobs[1] then return end
  local owners, has_endpoints = {}, call('EXISTS', WEBHOOK_OWNERS) == 1
  for _, job in ipairs(jobs) do
    if (has_endpoints or job.webhook) and is_event(job, owners) then
      local is_response = call('HEXISTS', JOB .. job.id, 'response') == 1
      write_event(is_response and 'response' or 'job', job.id, job.state, job.owner or '', job.webhook)
    end
  end
end
