-- Ask for failed lines of a batch that has ended to run again, within a new window.
-- ARGV: time|'', id, which: a custom_id or '*', the window in seconds.
-- Reply: 'done' | 'refused' (it has not ended, or no line has failed, or its input is gone) | 'missing'
local given_time, id, which, window = unpack(ARGV)
local state, failed, owner, redrive = unpack(call('HMGET', BATCH .. id, 'status', 'failed', 'owner', 'redrive'))
if not state then return 'missing' end
if state == 'in_progress' and redrive == which then return 'done' end
local ENDED = {completed = true, expired = true, cancelled = true}
if not ENDED[state] or tonumber(failed or 0) == 0 then return 'refused' end
local input = FILE .. call('HGET', BATCH .. id, 'input_file_id')
if call('EXISTS', input) == 0 then return 'refused' end
local now = clock(given_time)
call('HSET', BATCH .. id, 'status', 'in_progress', 'redrive', which, 'closing', '', 'expires_at', stamp(now + window))
call('HDEL', BATCH .. id, 'finalizing_at', 'completed_at', 'expired_at', 'cancelling_at', 'cancelled_at')
call('PERSIST', BATCH .. id)
call('PERSIST', BATCH_DONE .. id)
for _, kind in ipairs({'output', 'error'}) do
  local file = call('HGET', BATCH .. id, kind .. '_file_id')
  call('ZREM', FILE_EXPIRY, file)
  call('HDEL', FILE .. file, 'expires_at')
  if call('EXISTS', FILE .. file) == 1 then call('HSET', FILE .. file, 'uses', 1) end
end
call('HINCRBY', input, 'uses', 1)
call('ZADD', LIVE_BATCHES, stamp(now), id)
return 'done'
