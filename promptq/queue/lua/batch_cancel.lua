-- Ask for the end of a batch. Its holder ends it: what ran is kept.
-- ARGV: time|'', id.
-- Reply: 'done' | the state that it is in, in which it cannot be cancelled | 'missing'
local given_time, id = unpack(ARGV)
local state = call('HGET', BATCH .. id, 'status')
if not state then return 'missing' end
if state == 'cancelling' then return 'done' end
if state ~= 'validating' and state ~= 'in_progress' then return state end
call('HSET', BATCH .. id, 'status', 'cancelling', 'cancelling_at', stamp(clock(given_time)), 'closing', 'cancelled')
return 'done'
