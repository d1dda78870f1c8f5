-- Ask a registered worker to drain: its next heartbeat is told, and a message makes it beat soon.
-- ARGV: time|'' (not used), name.
-- Reply: 1 | 0 (no such worker, or it has said goodbye)
local name = ARGV[2]
local key = WORKER .. name
if call('HEXISTS', key, 'metrics_url') == 0 or call('HEXISTS', key, 'death') == 1 then return 0 end
call('HSET', key, 'drain', '1')
call('PUBLISH', DRAIN, name)
return 1
