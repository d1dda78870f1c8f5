-- Put before transition.lua: events for whoever asked to be told of ends. The script that ends jobs writes them itself,
-- so there is no end without its event. The dispatcher takes them from there.

-- Where one job's end is to be told: at the address that it was submitted with, or else ''; nil: nowhere. `owners` are
-- those of whom is known whether they have endpoints.
local function address_of(job, owners)
  local address = call('HGET', WEBHOOK_JOBS, job.id)
  if address then call('HDEL', WEBHOOK_JOBS, job.id) end
  local owner = job.owner or ''
  if owners[owner] == nil then owners[owner] = call('SISMEMBER', WEBHOOK_OWNERS, owner) == 1 end
  return address or owners[owner] and '' or nil
end

-- Write the events of the jobs that ended in one script. An outbox that is no stream costs the events: the jobs have
-- ended, hence pcall.
local function write_events(events)
  if not events[1] or call('EXISTS', WEBHOOK_JOBS, WEBHOOK_OWNERS) == 0 then return end
  local owners = {}
  for _, job in ipairs(events) do
    local address = address_of(job, owners)
    if address then
      redis.pcall('XADD', OUTBOX, '*', 'job', job.id, 'state', job.state, 'owner', job.owner or '', 'url', address)
    end
  end
end
