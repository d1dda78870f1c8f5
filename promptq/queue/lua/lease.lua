-- Take a lease, renew one's own, or give it up. Who holds it no more has its writes refused by the token.
-- ARGV: time|'' (not used), what, token of the holder, seconds; 0: it is given up.
-- Reply: 1 (held, or given up) | 0 (another holds it)
local _, what, token, seconds = unpack(ARGV)
local holder = call('GET', LEASE .. what)
if holder and holder ~= token then return 0 end
if tonumber(seconds) == 0 then
  call('DEL', LEASE .. what)
  return 1
end
call('SET', LEASE .. what, token, 'PX', string.format('%.0f', 1000 * seconds))
return 1
