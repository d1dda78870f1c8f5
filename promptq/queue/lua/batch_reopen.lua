-- Have failed lines of a batch run again: what is kept of its files are these parts now, and the lines are not done.
-- Only the holder of its lease may.
-- ARGV: time|'' (not used), id, token of the lease, the round that this ends, how many parts, per part: kind, what the
--       list is to have, bytes; then the numbers of the lines.
-- Reply: 'done' | 'lost' (the lease is another's)
local _, id, token, round, part_count = unpack(ARGV, 1, 5)
local FIRST_PART, VALUES = 6, 3
local first_line = FIRST_PART + VALUES * part_count
if not holds(id, token) then return 'lost' end
if call('HGET', BATCH .. id, 'redrive') == '' then return 'done' end
call('HSET', BATCH .. id, 'redrive', '', 'round', round + 1)
call('DEL', BATCH_PARTS .. id)
for _, kind in ipairs({'output', 'error'}) do
  local file = FILE .. call('HGET', BATCH .. id, kind .. '_file_id')
  if call('EXISTS', file) == 1 then call('HSET', file, 'bytes', 0, 'batch_id', id) end
end
for i = FIRST_PART, first_line - 1, VALUES do
  call('RPUSH', BATCH_PARTS .. id, ARGV[i + 1])
  call('HINCRBY', FILE .. call('HGET', BATCH .. id, ARGV[i] .. '_file_id'), 'bytes', ARGV[i + 2])
end
for i = first_line, #ARGV do call('SETBIT', BATCH_DONE .. id, ARGV[i], 0) end
call('HINCRBY', BATCH .. id, 'failed', first_line - #ARGV - 1)
return 'done'
