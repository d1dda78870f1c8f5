-- Note the deliveries of one event, and take it from the outbox: both, or neither. Once more does nothing.
-- ARGV: time|'', entry of the outbox|'' (the event comes from elsewhere), owner, seconds that a host is kept when nothing
--       waits for it, per delivery: endpoint, id, delivery as JSON, and where the endpoint is that of a host that a job
--       named: the host, and the secret's fingerprint, else '' ''.
-- Reply: how many were noted
local given_time, entry, owner, idle_seconds = unpack(ARGV, 1, 4)
local FIRST, VALUES = 5, 5
local now, noted = clock(given_time), 0
-- An entry that is gone was noted by an earlier call, whose answer was lost, or by another dispatcher.
if entry ~= '' and call('XDEL', OUTBOX, entry) == 0 then return 0 end

-- Nobody makes a host's endpoint: it is there while something waits for it, and for a while after.
local function keep_host(endpoint, host, fingerprint)
  call('ZREMRANGEBYSCORE', WEBHOOK_HOSTS .. owner, '-inf', stamp(now - idle_seconds))
  call('ZADD', WEBHOOK_HOSTS .. owner, 'inf', endpoint)
  call('HSETNX', WEBHOOK .. endpoint, 'created_at', stamp(now))
  call('HSET', WEBHOOK .. endpoint, 'owner', owner, 'url', host, 'events', '', 'version', 1, 'fingerprint', fingerprint)
  for _, key in ipairs({WEBHOOK, DELIVERIES, DELIVERY_ORDER, DELIVERIES_ENDED}) do call('PERSIST', key .. endpoint) end
end

for i = FIRST, #ARGV, VALUES do
  local endpoint, id, delivery, host, fingerprint = unpack(ARGV, i, i + VALUES - 1)
  if host ~= '' then keep_host(endpoint, host, fingerprint) end
  -- An endpoint that is gone gets none, nor one that has it.
  if call('EXISTS', WEBHOOK .. endpoint) == 1 and call('HSETNX', DELIVERIES .. endpoint, id, delivery) == 1 then
    call('ZADD', DELIVERY_ORDER .. endpoint, stamp(now), id)
    call('ZADD', DELIVERIES_DUE .. endpoint, stamp(now), id)
    call('SADD', WEBHOOKS_ACTIVE, endpoint)
    noted = noted + 1
  end
end
return noted
