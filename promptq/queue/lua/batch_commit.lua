-- Add parts, which the storage has, to what a batch has written, and mark their lines as done: all or nothing, so that
-- each line is written once whoever else has tried. Only the holder of the batch's lease may.
-- ARGV: time|'', id, token of the lease, mark of this call: repeated because its answer was lost, it does nothing twice;
--       lines with an answer, lines without, how many parts, per part: kind, what the list is to have, bytes; then the
--       numbers of the lines.
-- Reply: 'done' | 'lost' (the lease is another's) | 'twice' (a line is done already: nothing was written)
local given_time, id, token, mark, completed, failed, part_count = unpack(ARGV, 1, 7)
local FIRST_PART, VALUES = 8, 3
local first_line = FIRST_PART + VALUES * part_count
if not holds(id, token) then return 'lost' end
if call('HGET', BATCH .. id, 'last_commit') == mark then return 'done' end
for i = first_line, #ARGV do
  if call('GETBIT', BATCH_DONE .. id, ARGV[i]) == 1 then return 'twice' end
end
local now, owner = clock(given_time), call('HGET', BATCH .. id, 'owner')

-- A file that the batch writes is there from its first part on.
local function grow(kind, bytes)
  local file = call('HGET', BATCH .. id, kind .. '_file_id')
  if call('EXISTS', FILE .. file) == 0 then
    call('HSET', FILE .. file, 'owner', owner, 'filename', id .. '_' .. kind .. '.jsonl', 'purpose', 'batch_output',
      'bytes', 0, 'created_at', stamp(now), 'batch_id', id)
    call('ZADD', FILES .. owner, stamp(now), file)
  end
  call('HINCRBY', FILE .. file, 'bytes', bytes)
end

call('HSET', BATCH .. id, 'last_commit', mark) -- the first write, and one that a full server refuses
for i = FIRST_PART, first_line - 1, VALUES do
  call('RPUSH', BATCH_PARTS .. id, ARGV[i + 1])
  grow(ARGV[i], ARGV[i + 2])
end
for i = first_line, #ARGV do call('SETBIT', BATCH_DONE .. id, ARGV[i], 1) end
call('HINCRBY', BATCH .. id, 'completed', completed)
call('HINCRBY', BATCH .. id, 'failed', failed)
return 'done'
