-- Write down a worker as it is now, unless another has taken its name over meanwhile: RQ's hash and sets.
-- ARGV: time|'' (not used), name, the process' own mark, '1' to take the name over|'', seconds to keep, how many queues,
--       their names, fields with their values.
-- Reply: 1 | 2 (likewise, and somebody asks it to drain) | 0 (the name is another's: nothing is written)
local _, name, instance, takes_over, keep_seconds, queues = unpack(ARGV, 1, 6)
local FIRST_QUEUE, key = 7, WORKER .. name
local first_field = FIRST_QUEUE + queues
local holder = call('HGET', key, 'instance')
if takes_over == '1' then call('UNLINK', key)
elseif holder and holder ~= instance then return 0 end
call('HSET', key, 'instance', instance, unpack(ARGV, first_field))
call('EXPIRE', key, keep_seconds)
call('SADD', WORKERS, key)
for i = FIRST_QUEUE, first_field - 1 do call('SADD', WORKERS_OF .. ARGV[i], key) end
return call('HEXISTS', key, 'drain') == 1 and 2 or 1
