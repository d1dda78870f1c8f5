-- Put before transition.lua and batch_move.lua: events for the API keys that have webhook endpoints. The script that
-- ends a job or a batch writes them itself, so there is no end without its event. The dispatcher takes them from there.

-- Whether somebody asked to be told of what has this owner. `owners` are those of whom is known whether they did.
local function is_told(owner, owners)
  if owners[owner] == nil then owners[owner] = call('SISMEMBER', WEBHOOK_OWNERS, owner) == 1 end
  return owners[owner]
end

-- Write one event. An outbox that is no stream costs the event: what it tells of has ended, hence pcall.
local function write_event(kind, id, state, owner)
  redis.pcall('XADD', OUTBOX, '*', 'kind', kind, 'id', id, 'state', state, 'owner', owner)
end

-- Write the events of the jobs that ended in one script. A line of a batch has none: the batch has.
local function write_events(jobs)
  if not jobs[1] or call('EXISTS', WEBHOOK_OWNERS) == 0 then return end
  local owners = {}
  for _, job in ipairs(jobs) do
    local owner = job.owner or ''
    if not string.find(job.id, '^batch_%x+%-%d+%-%d+%-%d+$') and is_told(owner, owners) then
      local is_response = call('HEXISTS', JOB .. job.id, 'response') == 1
      write_event(is_response and 'response' or 'job', job.id, job.state, owner)
    end
  end
end
