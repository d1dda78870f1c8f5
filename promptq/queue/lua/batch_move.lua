-- Bring a batch into its next state. Only the holder of its lease may.
-- ARGV: time|'', id, token of the lease, states that it may come from with spaces between, the state that it comes to,
--       seconds to keep the batch where that is its end|'', other fields of its hash as name, value, ...
-- Reply: 'done' | 'lost' (the lease is another's) | the state that it is in, which is none of those
local given_time, id, token, from, to, keep = unpack(ARGV, 1, 6)
if not holds(id, token) then return 'lost' end
local state = call('HGET', BATCH .. id, 'status')
if state == to then return 'done' end
if not string.find(' ' .. from .. ' ', ' ' .. (state or '') .. ' ', 1, true) then return state or 'lost' end
local now = stamp(clock(given_time))
call('HSET', BATCH .. id, 'status', to, to .. '_at', now, unpack(ARGV, 7))
if keep == '' then return 'done' end

-- The parts are one file now, which expires with the batch.
local function settle(file)
  if call('EXISTS', FILE .. file) == 0 then return end
  call('HDEL', FILE .. file, 'batch_id', 'uses')
  call('HSET', FILE .. file, 'expires_at', stamp(now + keep))
  call('ZADD', FILE_EXPIRY, stamp(now + keep), file)
end

local input = FILE .. call('HGET', BATCH .. id, 'input_file_id')
if call('EXISTS', input) == 1 then call('HINCRBY', input, 'uses', -1) end
settle(call('HGET', BATCH .. id, 'output_file_id'))
settle(call('HGET', BATCH .. id, 'error_file_id'))
call('UNLINK', BATCH_PARTS .. id)
call('ZREM', LIVE_BATCHES, id)
call('EXPIRE', BATCH .. id, keep)
call('EXPIRE', BATCH_DONE .. id, keep)
local owner = call('HGET', BATCH .. id, 'owner') or ''
if is_told(owner, {}) then write_event('batch', id, to, owner) end
return 'done'
