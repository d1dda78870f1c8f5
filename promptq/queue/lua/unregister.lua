-- Take a worker out of RQ's sets and ours, and mark its hash as that of a dead one, unless the name is another's by
-- now.
-- ARGV: time|'', name, the process' own mark, seconds for which RQ's tools see it, names of the queues, the most urgent
--       one first.
-- Reply: 1 | 0 (the name is another's: nothing is changed)
local now, name, instance, keep_seconds = clock(ARGV[1]), unpack(ARGV, 2, 4)
local FIRST_QUEUE, key = 5, WORKER .. name
local holder = call('HGET', key, 'instance')
if holder and holder ~= instance then return 0 end
call('SREM', WORKERS, key)
for i = FIRST_QUEUE, #ARGV do call('SREM', WORKERS_OF .. ARGV[i], key) end
call('SREM', READY_WORKERS .. ARGV[FIRST_QUEUE], name)
call('HSET', key, 'death', iso_time(now))
call('EXPIRE', key, keep_seconds)
return 1
