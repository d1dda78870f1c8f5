-- Take a lease, or renew one's own. Who holds it no more has its writes refused by the token.
-- ARGV: time|'' (not used), what, token of the holder, seconds.
-- Reply: 1 (held) | 0 (another holds it)
local _, what, token, seconds = unpack(ARGV)
local holder = call('GET', LEASE .. what)
if holder and holder ~= token then return 0 end
call('SET', LEASE .. what, token, 'PX', string.format('%.0f', 1000 * seconds))
return 1
